package redfish

import (
	"net/http"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestTasks has an insertion that answers 202 and goes on in a task; each script says what the monitor and the task answer, read by
// read, the last for good.
func TestTasks(t *testing.T) {
	const monitor, task = "/redfish/v1/TaskService/TaskMonitors/1", "/redfish/v1/TaskService/Tasks/1"
	type say struct {
		status int // 0: cut the connection; -1: run the action, then 204
		body   obj
	}
	running, completed := obj{"@odata.id": task, "TaskState": "Running"}, obj{"@odata.id": task, "TaskState": "Completed", "TaskStatus": "OK"}
	exception := obj{"@odata.id": task, "TaskState": "Exception", "TaskStatus": "Critical", "Messages": []any{obj{"MessageId": "Base.1.8.SourceGone", "Message": "cannot fetch"}}}
	for _, tc := range []struct {
		name     string
		location bool
		body     obj
		monitor  []say
		task     []say
		code     string
		says     string
	}{
		{"the monitor ends with the action's own answer", true, running, []say{{202, running}, {202, running}, {-1, nil}}, nil, "", ""},
		{"the monitor gives the task, completed", true, nil, []say{{202, running}, {200, completed}}, nil, "", ""},
		{"the task fails", true, running, []say{{202, running}, {200, exception}}, nil, "MC-BMC-NO-MEDIA", "cannot fetch"},
		{"the monitor gives the action's failure", true, running, []say{{400, redfishError("GeneralError", "bad image")}}, nil, "MC-BMC-NO-MEDIA", "bad image"},
		{"the BMC restarts meanwhile", true, running, []say{{202, running}, {0, nil}, {0, nil}, {0, nil}, {0, nil}, {503, nil}, {401, nil}, {202, running}, {200, completed}}, nil, "", ""},
		{"the monitor is gone, the task tells", true, running, []say{{202, running}, {404, nil}}, []say{{200, running}, {200, completed}}, "", ""},
		{"the monitor is gone, the task failed", true, running, []say{{410, nil}}, []say{{200, exception}}, "MC-BMC-NO-MEDIA", "cannot fetch"},
		{"both are gone: the read-back tells", true, running, []say{{404, nil}}, []say{{404, nil}}, "", ""},
		{"no monitor, only a task", false, running, nil, []say{{200, running}, {200, completed}}, "", ""},
		{"neither monitor nor task", false, nil, nil, nil, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			fetch := f.actions[insertCd]
			at := map[string]int{}
			play := func(w http.ResponseWriter, uri string, script []say) {
				f.mu.Lock()
				n := at[uri]
				at[uri]++
				f.mu.Unlock()
				s := script[min(n, len(script)-1)]
				switch s.status {
				case 0:
					panic(http.ErrAbortHandler)
				case 401:
					f.mu.Lock()
					clear(f.tokens)
					f.mu.Unlock()
				case -1:
					s.status = 204
				}
				answer(w, s.status, s.body)
			}
			f.hook = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				switch r.URL.Path {
				case insertCd:
					f.mu.Lock()
					fetch(obj{"Image": testImage})
					f.mu.Unlock()
					if tc.location {
						w.Header().Set("Location", "https://10.1.2.3"+monitor) // behind address translation
					}
					w.Header().Set("Retry-After", "3")
					var out any
					if tc.body != nil {
						out = tc.body
					}
					answer(w, 202, out)
				case monitor:
					play(w, monitor, tc.monitor)
				case task:
					play(w, task, tc.task)
				default:
					return false
				}
				return true
			}
			m, err := f.dial().InsertMedia(t.Context(), MediaRequest{URL: testImage})
			if fleet.CodeOf(err) != tc.code || tc.code != "" && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%+v, %v", m, err)
			}
			if want := len(tc.monitor); at[monitor] < want {
				t.Errorf("the monitor was read %d times, want %d", at[monitor], want)
			}
		})
	}
}

func TestTaskWithoutEnd(t *testing.T) {
	f := newFake(t)
	f.put("/redfish/v1/Tasks/1", obj{"TaskState": "Running"})
	f.actions[insertCd] = func(obj) (int, any) { return 202, obj{"@odata.id": "/redfish/v1/Tasks/1", "TaskState": "Running"} }
	if _, err := f.dial().InsertMedia(t.Context(), MediaRequest{URL: testImage}); !strings.Contains(err.Error(), "does not end") {
		t.Errorf("got %v", err)
	}
}
