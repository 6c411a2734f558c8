//go:build !ramdisk

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strconv"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/rogpeppe/go-internal/testscript"
)

// scriptSystem makes a raw image with one EFI system partition whose boot loader is a few bytes: as much of a tenant's system as is looked at.
func scriptSystem(ts *testscript.TestScript, neg bool, args []string) {
	const size, start = 48 << 20, 2048
	d, err := diskfs.Create(ts.MkAbs(args[0]), size, diskfs.SectorSizeDefault)
	ts.Check(err)
	table := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, GUID: "5CA3360B-5DE6-4FCF-B4CE-419CEE433B51", Partitions: []*gpt.Partition{
		{Index: 1, Start: start, Size: size - 2*start*512, Type: gpt.EFISystemPartition, Name: "ESP", GUID: "F1DF9A4B-0F3C-4D7E-9A51-6F2D4A1B7C01"}}}
	ts.Check(d.Partition(table))
	fs, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: 1, FSType: filesystem.TypeFat32, VolumeLabel: "ESP"})
	ts.Check(err)
	ts.Check(errors.Join(fs.Mkdir("/EFI"), fs.Mkdir("/EFI/BOOT")))
	f, err := fs.OpenFile("/EFI/BOOT/BOOTX64.EFI", os.O_CREATE|os.O_RDWR)
	ts.Check(err)
	_, err = f.Write([]byte("MZ and no more"))
	ts.Check(errors.Join(err, f.Close(), d.Close()))
}

// scriptQcow2 makes a qcow2 image (QEMU's docs/interop/qcow2.txt) without contents: version 3, clusters of 64 KiB, a disk of 1 MiB. KIND is plain, backing
// (it names a backing file), data-file (its clusters lie in another file) or encrypted.
func scriptQcow2(ts *testscript.TestScript, neg bool, args []string) {
	const cluster = 64 << 10
	b := make([]byte, 4*cluster)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16)
	be.PutUint64(b[24:], 1<<20)
	be.PutUint32(b[36:], 1)         // entries of the L1 table
	be.PutUint64(b[40:], 3*cluster) // where it lies
	be.PutUint64(b[48:], cluster)   // the refcount table
	be.PutUint32(b[56:], 1)
	be.PutUint32(b[96:], 4) // refcounts of 16 bits
	be.PutUint32(b[100:], 104)
	be.PutUint64(b[cluster:], 2*cluster)
	for i := range 4 {
		be.PutUint16(b[2*cluster+2*i:], 1)
	}
	switch args[1] {
	case "plain":
	case "backing":
		name := "/etc/shadow"
		be.PutUint64(b[8:], 512)
		be.PutUint32(b[16:], uint32(len(name)))
		copy(b[512:], name)
	case "data-file":
		be.PutUint64(b[72:], 1<<2)
		be.PutUint32(b[104:], 0x44415441)
		be.PutUint32(b[108:], 11)
		copy(b[112:], "/etc/shadow")
	case "encrypted":
		be.PutUint32(b[32:], 1)
	default:
		ts.Fatalf("qcow2: no kind %q", args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// scriptFill makes a file of that many bytes that say where they stand, or writes them to the beginning of one that is there.
func scriptFill(ts *testscript.TestScript, neg bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := bytes.Repeat([]byte("a byte of a file\n"), size/17+1)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = f.WriteAt(b[:size], 0)
	ts.Check(errors.Join(err, f.Close()))
}

// scriptCut drops the last bytes of a file.
func scriptCut(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}
