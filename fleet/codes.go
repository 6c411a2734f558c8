package fleet

// Codes holds a page for every stable error code; `metalctl help CODE` prints it. A code is never reused or renamed.
// The house test compares it with the codes that the sources use.
var Codes = map[string]Page{
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
