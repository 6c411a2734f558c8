package redfish

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/metalctl/metalctl/fleet"
	"github.com/stmcginnis/gofish/schemas"
)

func TestErrorBodies(t *testing.T) {
	unknown := Message{ID: "PropertyUnknown", Registry: "Base.1.8", Text: "no such property", Args: []string{"Foo"}, RelatedProperties: []string{"#/Foo"}, Severity: "Warning", Resolution: "remove it"}
	const one = `{"MessageId":"Base.1.8.PropertyUnknown","Message":"no such property","MessageArgs":["Foo"],"RelatedProperties":["#/Foo"],"Severity":"Warning","Resolution":"remove it"}`
	for _, tc := range []struct {
		name, body string
		want       []Message
		text       string
	}{
		{"a list", `{"error":{"code":"Base.1.8.GeneralError","message":"see","@Message.ExtendedInfo":[` + one + `]}}`, []Message{unknown}, ""},
		{"an object (Dell)", `{"error":{"@Message.ExtendedInfo":` + one + `}}`, []Message{unknown}, ""},
		{"a string", `{"error":{"@Message.ExtendedInfo":"broken"}}`, []Message{{Text: "broken"}}, ""},
		{"a list of strings", `{"error":{"@Message.ExtendedInfo":["broken","worse"]}}`, []Message{{Text: "broken"}, {Text: "worse"}}, ""},
		{"without extended information", `{"error":{"code":"Base.1.8.GeneralError","message":"broken"}}`, []Message{{ID: "GeneralError", Registry: "Base.1.8", Text: "broken"}}, ""},
		{"an empty list", `{"error":{"code":"iLO.0.10.ExtendedInfo","message":"see","@Message.ExtendedInfo":[]}}`, []Message{{ID: "ExtendedInfo", Registry: "iLO.0.10", Text: "see"}}, ""},
		{"without error", `{"@Message.ExtendedInfo":[` + one + `]}`, []Message{unknown}, ""},
		{"error is a string", `{"error":"broken"}`, []Message{{Text: "broken"}}, ""},
		{"a task's messages", `{"TaskState":"Exception","Messages":[` + one + `]}`, []Message{unknown}, ""},
		{"bare MessageId", `{"error":{"@Message.ExtendedInfo":[{"MessageId":"NoValidSession"}]}}`, []Message{{ID: "NoValidSession"}}, ""},
		{"numbers among the arguments", `{"error":{"@Message.ExtendedInfo":[{"MessageId":"A.B","MessageArgs":["x",7,null]}]}}`, []Message{{ID: "B", Registry: "A", Args: []string{"x", "7"}}}, ""},
		{"HTML", "<html><head><title>503</title></head><body>Try  later</body></html>", nil, "503 Try later"},
		{"other JSON", `{"a":1}`, nil, `{"a":1}`},
		{"empty", "", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := parseError(400, "GET", "/x", []byte(tc.body))
			if d := cmp.Diff(e.Messages, tc.want); d != "" {
				t.Errorf("messages (-got +want):\n%s", d)
			}
			if e.Text != tc.text {
				t.Errorf("text %q, want %q", e.Text, tc.text)
			}
		})
	}
}

func TestErrorTextIsHarmless(t *testing.T) {
	e := parseError(400, "GET", "/x", []byte(`{"error":{"message":"\u001b[2Jred\u009b31m\u202eevil\nline"}}`))
	for _, r := range e.Error() {
		if unicode.IsControl(r) || r == 0x202e {
			t.Errorf("%q holds %U", e.Error(), r)
		}
	}
}

func TestTagForms(t *testing.T) {
	for _, tc := range []struct {
		name, header, body string
		want               []string
	}{
		{"plain", `"a"`, `"a"`, []string{`"a"`}},
		{"weak in the body (Gigabyte)", `"a"`, `W/"b"`, []string{`"a"`, `W/"b"`, `"b"`}},
		{"weak", `W/"a"`, "", []string{`W/"a"`, `"a"`}},
		{"quoted twice: the body's first", `""a""`, `"b"`, []string{`"b"`}},
		{"quoted twice, none in the body", `""a""`, "", []string{`"a"`}},
		{"gzip added", `"a-gzip"`, "", []string{`"a"`}},
		{"gzip added to a weak one", `W/"a-gzip"`, "", []string{`W/"a"`, `"a"`}},
		{"empty", `""`, `W/""`, nil},
		{"not quoted", `abc`, "", []string{"abc"}},
		{"a line break", "\"a\r\nX-Evil: 1\"", "", nil},
		{"none", "", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tagForms(tc.header, tc.body), tc.want); d != "" {
				t.Errorf("-got +want:\n%s", d)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name, value, date string
		want              time.Duration
		ok                bool
	}{
		{"seconds", "7", "", 7 * time.Second, true},
		{"a date", now.Add(time.Minute).Format(http.TimeFormat), "", time.Minute, true},
		{"a date by the BMC's own clock of 1970", "Thu, 01 Jan 1970 00:01:00 GMT", "Thu, 01 Jan 1970 00:00:30 GMT", 30 * time.Second, true},
		{"past", now.Add(-time.Minute).Format(http.TimeFormat), "", 0, true},
		{"absurd", "99999999999", "", maxRetryAfter, true},
		{"negative", "-1", "", 0, false},
		{"words", "soon", "", 0, false},
		{"none", "", "", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{"Retry-After": {tc.value}, "Date": {tc.date}}
			if got, ok := retryAfter(h, now); got != tc.want || ok != tc.ok {
				t.Errorf("got %s, %v, want %s, %v", got, ok, tc.want, tc.ok)
			}
		})
	}
}

func TestRetryRules(t *testing.T) {
	lost := fleet.Errorf(fleet.Unavailable, "MC-BMC-UNREACHABLE", "reset by peer")
	for _, tc := range []struct {
		name, method string
		e            *Error
		err          error
		want         bool
	}{
		{"a read after 500", "GET", &Error{Status: 500}, nil, true},
		{"a write after 500", "POST", &Error{Status: 500}, nil, false},
		{"a write after 503", "POST", &Error{Status: 503}, nil, true},
		{"a write after a lost answer", "POST", nil, lost, false},
		{"a read after a lost answer", "GET", nil, lost, true},
		{"a write that the iDRAC was not ready for", "PATCH", &Error{Status: 400, Messages: []Message{{ID: "SYS518"}}}, nil, true},
		{"a write during iLO's POST", "PATCH", &Error{Status: 400, Messages: []Message{{ID: "UnableToModifyDuringSystemPOST"}}}, nil, true},
		{"a write that is wrong", "PATCH", &Error{Status: 400, Messages: []Message{{ID: "PropertyUnknown"}}}, nil, false},
		{"a read that is not there", "GET", &Error{Status: 404}, nil, false},
	} {
		if _, got := again(tc.method, 1, false, tc.e, tc.err); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestRedactionOfBodies(t *testing.T) {
	s := &scrubber{}
	s.addBasic("admin", testPassword)
	got := s.body([]byte(`{"UserName":"admin","Password":"x","Oem":{"Token":"abc"},"Image":"https://h:1/secret/path.iso?k=1","PasswordName":null,"Text":"pw is hunter2-\"quoted\"-söcret"}`))
	want := `{"Image":"https://h:1/***","Oem":{"Token":"***"},"Password":"***","PasswordName":null,"Text":"pw is ***","UserName":"***"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTypedDropsOnlyWhatDoesNotFit(t *testing.T) {
	r, err := parseResource("/x", &response{header: http.Header{}, body: []byte(`{"Model":"M","PowerCycleDelaySeconds":"five","SerialNumber":"S","ProcessorSummary":[]}`)})
	if err != nil {
		t.Fatal(err)
	}
	cs := typed[schemas.ComputerSystem](r)
	if cs.Model != "M" || cs.SerialNumber != "S" {
		t.Errorf("got %q, %q", cs.Model, cs.SerialNumber)
	}
}

func TestLocalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/redfish/v1/Systems/1":            "/redfish/v1/Systems/1",
		"/redfish/v1/Chassis/1#/Thermal/0": "/redfish/v1/Chassis/1",
		"/redfish/v1/X?$skip=50":           "/redfish/v1/X?$skip=50",
		"https://evil.example/redfish":     "",
		"//evil.example/x":                 "",
		"redfish/v1":                       "",
		"/redfish/../../etc":               "",
		"javascript:alert(1)":              "",
		"/" + strings.Repeat("a", 3000):    "",
		"/redfish/v1/\x7f":                 "",
		"":                                 "",
	} {
		if got, err := localPath(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%.40q: %q, %v", in, got, err)
		}
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add(400, []byte(`{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.PropertyUnknown","MessageArgs":["x"]}]}}`))
	f.Add(503, []byte("<html>busy</html>"))
	f.Add(500, []byte(`{"error":[{"error":["x"]}]}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := parseError(status, "GET", "/x", body)
		if len(e.Messages) > 6*maxMessages {
			t.Errorf("%d messages", len(e.Messages))
		}
		for _, r := range e.Error() {
			if unicode.IsControl(r) {
				t.Errorf("%q holds %U", e.Error(), r)
			}
		}
		for _, m := range e.Messages {
			if strings.Contains(m.ID, ".") {
				t.Errorf("id %q keeps its registry", m.ID)
			}
		}
	})
}

func FuzzResource(f *testing.F) {
	f.Add([]byte(`{"@odata.id":"/redfish/v1","Systems":{"@odata.id":"/redfish/v1/Systems"},"Links":{"Sessions":{"@odata.id":"/s"}},"Vendor":"x"}`))
	f.Add([]byte(`{"Members":[{"@odata.id":"/redfish/v1/Systems/1"},7,null],"Members@odata.nextLink":"/redfish/v1/Systems?$skip=1"}`))
	f.Add([]byte(`{"Boot":[],"Actions":{"Oem":{"a":{"#x.y":{"target":"//evil/x"}}}},"MediaTypes":"CD"}`))
	f.Add([]byte(` {"PowerState":"On","a":{"PowerState":"Off"},"b":["PowerState",":"],"c":"PowerState\":\"","\u0050owerState":"O\u0066f"}`))
	f.Add([]byte(`{"PowerState":"On","PowerState" : {"x":"y"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseResource("/redfish/v1", &response{header: http.Header{}, body: body})
		one, oneErr := memberText(body, "PowerState")
		if (err == nil) != (oneErr == nil) {
			t.Errorf("the whole says %v, one member %v", err, oneErr)
		}
		if err != nil {
			return
		}
		if whole := r.str("PowerState"); whole != one {
			t.Errorf("the whole has %q, the member alone is %q", whole, one)
		}
		all := append(r.links("Members"), r.link("Systems"), r.link("Links", "Sessions"), linkOf(r.at("Members@odata.nextLink")))
		target, action := r.action("y")
		all = append(append(all, target), crawlLinks(r.at(), nil)...)
		for _, l := range all {
			if l != "" && (!strings.HasPrefix(l, "/") || strings.HasPrefix(l, "//")) {
				t.Errorf("link %q leads away", l)
			}
		}
		parseActionInfo(r, action)
		bootStateOf(r)
		hostLikeness(r)
		typed[schemas.ComputerSystem](r)
		typed[schemas.VirtualMedia](r)
		typed[schemas.Task](r)
	})
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte(`{"Members":[{"Id":"7","Message":"\u001b[2J\u001b[01;01Hone\rtwo","Created":"2026-01-02T03:04:05Z"},{"Id":"-1","Message":7},null]}`), int64(3))
	f.Add([]byte(`{"Members":[{"Id":"9223372036854775807","Message":"\u202e\u0000"}],"Members@odata.count":-3}`), int64(-1))
	f.Add([]byte(`{"Members":{}}`), int64(0))
	f.Fuzz(func(t *testing.T, body []byte, after int64) {
		r, err := parseResource("/redfish/v1", &response{header: http.Header{}, body: body})
		if err != nil {
			return
		}
		lines, end, err := consolePage(r, 0, after)
		if err != nil || len(lines) > consoleLines || end < -1 {
			t.Errorf("%d lines up to %d, %v", len(lines), end, err)
		}
		for _, l := range lines {
			if l.Text == "" || strings.ContainsFunc(l.Text, unicode.IsControl) {
				t.Errorf("line %q", l.Text)
			}
		}
	})
}

func FuzzTag(f *testing.F) {
	f.Add(`W/"a-gzip"`, `""b""`)
	f.Add("\"a\r\nb\"", "W/")
	f.Fuzz(func(t *testing.T, header, body string) {
		for _, tag := range tagForms(header, body) {
			if tag == "" || strings.ContainsAny(tag, "\r\n\x00 ") {
				t.Errorf("form %q", tag)
			}
			if got := normaliseTag(tag); got != tag {
				t.Errorf("%q normalises again to %q", tag, got)
			}
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7", "")
	f.Add("Thu, 01 Jan 1970 00:01:00 GMT", "Thu, 01 Jan 1970 00:00:30 GMT")
	f.Add("-9223372036854775808", "x")
	f.Fuzz(func(t *testing.T, value, date string) {
		d, _ := retryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, time.Unix(1, 0))
		if d < 0 || d > maxRetryAfter {
			t.Errorf("%s", d)
		}
	})
}

func FuzzActionInfo(f *testing.F) {
	f.Add([]byte(`{"Parameters":[{"Name":"Image","Required":true},{"Name":"TransferProtocolType","AllowableValues":["HTTP"]},7]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseResource("/x", &response{header: http.Header{}, body: body})
		if err != nil {
			return
		}
		info := parseActionInfo(r, r.obj)
		for _, name := range []string{"Image", "TransferProtocolType"} {
			info.values(name)
			info.takes(name)
		}
		if !info.known && !info.takes("anything") {
			t.Error("nothing is known, but a parameter is refused")
		}
	})
}
