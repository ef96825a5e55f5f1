//go:build linux

package wormhole

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestABlobIsSentToMany(t *testing.T) {
	noLeak(t)
	text := strings.Repeat("bulk data ", 1_000_000)
	blob := must[*Blob](t)(NewBlob([]byte(text)))
	tx, rx := pair[*Blob](t, Options{})
	check(t, tx.Send(within(t), blob))
	check(t, tx.Send(within(t), blob))
	check(t, blob.Close())
	expect(t, blob.Close(), ErrClosed)
	for i := 0; i < 2; i++ {
		got := must[*Blob](t)(rx.Recv(within(t)))
		all := must[[]byte](t)(io.ReadAll(io.NewSectionReader(got, 0, int64(got.Len()))))
		if string(all) != text {
			t.Error("other bytes than were sent")
		}
		if _, err := got.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("read before the beginning")
		}
		check(t, got.Close())
		_, err := got.ReadAt(all, 0)
		expect(t, err, ErrClosed)
	}
	tx.Close()
	rx.Close()
	if maps := must[[]byte](t)(os.ReadFile("/proc/self/maps")); strings.Contains(string(maps), "memfd:wormhole") {
		t.Error("still mapped")
	}
}

func TestMemoryThatCannotBeFilledIsAnErrorAndIsClosed(t *testing.T) {
	noLeak(t)
	tx, rx := pair[string](t, Options{})
	var limits syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limits))
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limits)
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1000, Max: limits.Max}))
	before := openFds(t)
	_, blobError := NewBlob(make([]byte, 1001))
	sendError := tx.Send(within(t), strings.Repeat("x", 500_000))
	after := openFds(t)
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limits))
	expect(t, blobError, syscall.EFBIG)
	expect(t, sendError, syscall.EFBIG)
	if before != after {
		t.Errorf("open before:\n%s\nand after:\n%s", before, after)
	}
	check(t, tx.Send(within(t), "next"))
	if got := must[string](t)(rx.Recv(within(t))); got != "next" {
		t.Error(got)
	}
}

func TestABlobClosesAfterTheLastView(t *testing.T) {
	noLeak(t)
	blob := must[*Blob](t)(NewBlob([]byte("some bytes")))
	var group sync.WaitGroup
	viewing, closed := make(chan bool), make(chan bool)
	group.Add(1)
	go func() {
		defer group.Done()
		err := blob.View(func(bytes []byte) error {
			close(viewing)
			<-closed
			if string(bytes) != "some bytes" {
				t.Error("other bytes")
			}
			return io.ErrUnexpectedEOF
		})
		if err != io.ErrUnexpectedEOF {
			t.Error(err)
		}
	}()
	<-viewing
	check(t, blob.Close())
	close(closed)
	group.Wait()
}

func TestABlobMustBeSealed(t *testing.T) {
	noLeak(t)
	for seals, expected := range map[int]string{
		0:                                 "it is not sealed against writing",
		sealGrow | sealShrink:             "it is not sealed against writing",
		sealWrite | sealGrow:              "it is not sealed against shrinking",
		sealWrite | sealShrink:            "it is not sealed against growing",
		sealWrite | sealShrink | sealGrow: "",
	} {
		file := memfd(t, "text", mfdSealing)
		must[int](t)(fcntl(int(file.Fd()), fAddSeals, seals))
		blob, err := BlobFromFile(file)
		file.Close()
		var not *NotABlobError
		if expected == "" {
			check(t, err)
			blob.Close()
		} else if !errors.As(err, &not) || not.Reason != expected {
			t.Errorf("found %v, expected %s", err, expected)
		}
	}
	null := must[*os.File](t)(os.Open("/dev/null"))
	defer null.Close()
	if _, err := BlobFromFile(null); err == nil || err.Error() != "wormhole: descriptor is not a blob: it is not a memfd" {
		t.Errorf("found %v", err)
	}
}

func TestABlobLivesWhileItIsViewed(t *testing.T) {
	for i := 0; i < 20; i++ {
		check(t, must[*Blob](t)(NewBlob([]byte("some bytes"))).View(func(bytes []byte) error {
			runtime.GC()
			runtime.GC()
			if string(bytes) != "some bytes" {
				t.Error("other bytes")
			}
			return nil
		}))
	}
}
