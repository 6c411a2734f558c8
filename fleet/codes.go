package fleet

// Codes holds a page for every stable error code; `metalctl help CODE` prints it. A code is never reused or renamed.
// The house test compares it with the codes that the sources use.
var Codes = map[string]Page{
	// agent
	"MC-AGENT-ABORTED":  {"a step was aborted", "Somebody asked for it. What the step had written stays; the step says in metalctl node plan whether it is done again. Go on with: metalctl node retry NODE"},
	"MC-AGENT-DISK":     {"no disk can be written to", "No accepted disk fits the root disk hints, several do and none was named, or the one that was written is gone. metalctl node show NODE lists disks and accepted serials; set the hints with: metalctl node set NODE --root-disk serial=SERIAL"},
	"MC-AGENT-EVIDENCE": {"what a step observed cannot be recorded", "The step ran to its end, but its evidence is too large or not encodable. This is a mistake of the program, please report it."},
	"MC-AGENT-FETCH":    {"the agent cannot fetch what a step needs", "Its server did not hand the document out, or the network between them was cut. Then: metalctl node retry NODE"},
	"MC-AGENT-LIMIT":    {"a step took too long", "Its time was over and it was stopped. metalctl node timeline NODE shows how far it came. Then: metalctl node retry NODE"},
	"MC-AGENT-OVER":     {"this boot's session is over", "The machine was booted again with a newer medium, so this agent is asked for nothing any more. If it still runs, power it off: metalctl node power off NODE"},
	"MC-AGENT-PANIC":    {"the agent has a defect", "A step panicked. The agent lives on and has put the stack on the node's timeline: metalctl node timeline NODE. Please report it, then: metalctl node retry NODE"},
	"MC-AGENT-PIN":      {"the server's key is not the one on the boot medium", "The agent sent nothing. The medium was made for another server, the server has a new key, or somebody is in between. Boot the node from a fresh medium: metalctl node retry NODE"},
	"MC-AGENT-REFUSED":  {"the server refuses the machine", "The token of the boot medium was spent by another machine, or this is not the machine that was enrolled. metalctl node show NODE says which. If all is well there, boot it again: metalctl node retry NODE"},
	"MC-AGENT-RESULT":   {"the server refused a result", "The step ran to its end but its result is larger than the server takes, or not what it understands: agent and server are of different versions. Boot the node again: metalctl node retry NODE"},
	"MC-AGENT-STEP":     {"the agent does not know a step", "The boot medium holds another version of the agent than the server. Boot the node again, which makes a fresh medium: metalctl node retry NODE"},
	"MC-AGENT-STUCK":    {"a step does not end", "It was told to stop and still runs, mostly because a disk does not answer. Nothing else starts on the machine until it ends. Power it off and look at its disks: metalctl node power off NODE --force, then metalctl node retry NODE"},
	"MC-AGENT-TASK":     {"the parameters of a step are not valid", "The server sent what the agent does not understand: they are of different versions, or it is a mistake of the program. Boot the node again: metalctl node retry NODE; please report it if that does not help."},
	"MC-AGENT-UNPROVEN": {"the image cannot be proven", "Nobody knows which content was written in this boot, so there is nothing to compare the disk with. Write it again: metalctl node retry NODE"},
	"MC-AGENT-USERDATA": {"user-data is not what the lease says", "Its digest differs from the lease's record; nothing was written. Release the lease and make it again, or run: metalctl server check"},
	// faults that steps find
	"MC-FAULT-BOOT-ENTRY":        {"a firmware boot entry cannot be set or removed", "The firmware refused the write or did not keep it. Its variable store may be full or locked. Look at the evidence in metalctl node show NODE, reset the firmware's settings if need be, then: metalctl node retry NODE"},
	"MC-FAULT-DATA-LEFT":         {"a disk still holds data after it was erased", "Reading back found old content. The node does not become available. Erase it again with metalctl node clean NODE; if it stays, replace the disk and record it: metalctl node retire NODE --destroyed SERIAL"},
	"MC-FAULT-ERASE-FAILED":      {"a disk could not be erased as asked", "No method that the disk has reached the level that was asked for, or the disk failed while it was erased. Look at the evidence; replace the disk, or record it as destroyed: metalctl node retire NODE --destroyed SERIAL"},
	"MC-FAULT-MISSING-DEVICE":    {"an accepted disk is gone", "A disk that was accepted does not show in the machine, so nobody knows what became of its data. If it was taken out on purpose, inspect and accept again: metalctl node inspect NODE, metalctl node accept NODE"},
	"MC-FAULT-UNEXPECTED-DEVICE": {"a disk was found that nobody accepted", "It was not touched. If it belongs to the machine, inspect and accept it: metalctl node inspect NODE, metalctl node accept NODE; else take it out."},
	// redfish
	"MC-BMC-AUTH":            {"the BMC refuses the account", "The user or password is wrong, or the account may not do this. After one refusal nobody in this program uses that password at that BMC again (BMCs lock accounts after as few as three), until a new one is set: metalctl bmc credential set NODE. The account needs the Operator role for power, media and boot."},
	"MC-BMC-BOOT":            {"the boot target cannot be set", "The BMC does not offer the target, or took it and does not keep it. metalctl bmc probe URL lists what it offers; metalctl node timeline NODE shows the exchange. A BIOS setting may forbid overrides, or the host may be in POST: metalctl node retry NODE later."},
	"MC-BMC-BREAKER":         {"the credential is not used, because the BMC refused it", "The BMC refused this user and password once; to keep the account from being locked they are tried at most once in ten minutes. Set the right password: metalctl bmc credential set NODE"},
	"MC-BMC-BUSY":            {"the BMC is busy or starting", "It answered that it cannot serve now, for longer than was waited. Nothing was changed. Wait a few minutes, then: metalctl node retry NODE. If it stays, too many sessions may be open on the BMC, or it needs a restart."},
	"MC-BMC-CONFLICT":        {"the BMC's state forbids it, or somebody else changed it", "Another program or person writes to the same BMC, or the host is in a state that the action does not fit. Nothing was overwritten. Look at metalctl node timeline NODE, then: metalctl node retry NODE"},
	"MC-BMC-EJECT":           {"a virtual media slot does not become empty", "The BMC took the eject but still shows the image. Some do while the host is on. Power the host off, then metalctl node retry NODE; if it stays, restart the BMC."},
	"MC-BMC-IDENTITY":        {"another machine answers at the BMC's address", "Serial or UUID are not the recorded ones, or the BMC serves several hosts and none was named. Check the address and the cabling. If the board was replaced: metalctl node repair NODE. If there are several hosts, name one in bmc.system."},
	"MC-BMC-LICENCE":         {"the BMC lacks a licence", "The vendor sells the function (mostly virtual media) separately. metalctl bmc probe URL names the licence. Install it on the BMC, then: metalctl node retry NODE"},
	"MC-BMC-NO-MEDIA":        {"the boot image cannot be given to the host", "No virtual media slot took the image, and the firmware offers no HTTP boot. The message says why for each slot. Often the BMC cannot reach the server (see advertise), accepts https only, or does not trust the server's certificate. metalctl bmc probe URL shows what the BMC can do, metalctl node timeline NODE whether it asked for the image."},
	"MC-BMC-PASSWORD-CHANGE": {"the BMC wants a new password first", "It has its factory password or one that expired, and allows nothing until it is changed. Change it at the BMC, then: metalctl bmc credential set NODE"},
	"MC-BMC-POWER":           {"the host's power does not follow", "The BMC took the request but the state did not change in time, or it does not offer the action. After a graceful shutdown the operating system may not listen: metalctl node power off NODE --force. Otherwise look at metalctl node timeline NODE and at the machine."},
	"MC-BMC-PROTOCOL":        {"the BMC's answer is not Redfish", "There is no Redfish service, or an answer is malformed, too large or leads elsewhere. Check that the address is a BMC's and that Redfish is turned on. metalctl bmc probe URL --record FILE keeps what it says, without secrets, for its vendor or for us."},
	"MC-BMC-REFUSED":         {"the BMC refuses a request", "The message repeats the BMC's reason. metalctl node timeline NODE shows the exchange; an update of the BMC's firmware may help."},
	"MC-BMC-SCHEME":          {"the BMC's address is not https", "Passwords are only sent over https. Write the address as https://HOST or https://HOST:PORT, without a path."},
	"MC-BMC-TASK":            {"a task of the BMC failed or does not end", "The BMC went on in the background and then failed, or never ended. The message repeats its reason. Look at its task list, then: metalctl node retry NODE"},
	"MC-BMC-TIMEOUT":         {"the time for a call to the BMC was over", "The work was aborted, or another writer of the same BMC took too long. What was sent before may have had its effect; the next attempt looks first. metalctl node retry NODE"},
	"MC-BMC-TLS":             {"the BMC's certificate is not trusted", "No password was sent. Make sure that this is the BMC, then give its CA (tls.ca_file), or the pin that metalctl bmc probe URL prints (tls.pin). A changed pin means a new certificate on the BMC, or somebody in between."},
	"MC-BMC-UNREACHABLE":     {"the BMC does not answer", "Nothing listens, the name does not resolve, or the way there is cut. A BMC that restarts is back in some minutes. Check with: metalctl bmc probe URL"},
	// store
	"MC-EVENTS-GONE":   {"the event is not kept any more", "The event log keeps a bounded number of events, and the one asked for is older, or belongs to the store before a restore. List the resources anew, then follow from the newest event: metalctl events --follow"},
	"MC-STORE-ABSENT":  {"there is no such record", "The name or id does not exist in the store. List what there is, for example: metalctl node list"},
	"MC-STORE-BLOB":    {"a stored blob is damaged", "The bytes of an inventory, report or user-data do not match their digest: the disk changed them. Run metalctl server check, look at the disk (dmesg, smartctl), then have the blob made again, for example: metalctl node inspect NODE"},
	"MC-STORE-BUSY":    {"another process has the store open", "One process at a time works on a data folder. Stop the other metalctl server (systemctl status metalctl), or give this one another --data-dir."},
	"MC-STORE-CLOSED":  {"the store is closed", "The server is stopping. What was answered is durable; repeat the command when it runs again."},
	"MC-STORE-DAMAGED": {"the store's file is damaged", "The file is no store, or its first pages do not match their checksums. Keep a copy of it, then go back to a backup: metalctl server restore --from BACKUP"},
	"MC-STORE-DECODE":  {"a stored record does not decode", "A record is damaged or was written by another program. metalctl server check names every such record."},
	"MC-STORE-FULL":    {"the disk of the data folder is full", "Nothing was written and nothing is lost; every write is refused until there is space. Free space on that disk, or move the data folder."},
	"MC-STORE-IO":      {"the store's disk does not work", "Reading or writing failed. After a failed sync the server takes no more writes until it is restarted, because the disk may hold less than was written. Look at dmesg, then: metalctl server check"},
	"MC-STORE-KEY":     {"the master key does not fit", "Secrets are sealed with a key that is kept outside the data folder. The file is missing, may be read by others, is no key, or belongs to another store. Without the right key a store cannot be opened: restore the key file from where its copy is kept."},
	"MC-STORE-LIMIT":   {"too much at once", "One commit takes at most 64 keys and 512 KiB, and one blob has a largest size. Ask for fewer things at once."},
	"MC-STORE-NEWER":   {"a newer program wrote this store", "This metalctl is older than the one that last opened the data folder, and would misread it. Start the newer program, or restore the copy that it made in DATA_DIR/backups before it migrated."},
	"MC-STORE-STALE":   {"somebody else was first", "What was read has changed before it was written back, so nothing was written. Look again and repeat the command."},
	"MC-STORE-VALUE":   {"a value cannot be stored", "A key or a value of the change is not one that the store takes; each fault is named. This is a mistake of the program, please report it."},
}

// Page explains an error code to an operator.
type Page struct {
	// Title is one line: what happened.
	Title string
	// Text says why it can happen and what to do, with the commands to type.
	Text string
}
