//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
)

// within is a context that makes a hang fail.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must[V any](t *testing.T) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pair[T any](t *testing.T, options Options) (*Sender[T], *Receiver[T]) {
	t.Helper()
	tx, rx, err := ChannelWith[T](options)
	check(t, err)
	t.Cleanup(func() { tx.Close(); rx.Close() })
	return tx, rx
}

func expect(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("expected %v, found %v", target, err)
	}
}

// openFds lists the open descriptors of this process, but for those that package runtime and this one keep.
func openFds(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	var list []string
	for _, entry := range entries {
		link, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err != nil || strings.HasPrefix(link, "/proc/") || strings.Contains(link, "event") {
			continue
		}
		list = append(list, entry.Name()+" "+link)
	}
	sort.Strings(list)
	return strings.Join(list, "\n")
}

// noLeak fails the test if it ends with other descriptors open than it began with. The garbage collector, which would
// close them, does not run meanwhile.
func noLeak(t *testing.T) {
	t.Helper()
	// The network poller of package runtime, which opens descriptors once.
	r, w, err := os.Pipe()
	check(t, err)
	r.Close()
	w.Close()
	collect()
	percent := debug.SetGCPercent(-1)
	before := openFds(t)
	t.Cleanup(func() {
		after := openFds(t)
		debug.SetGCPercent(percent)
		if before != after {
			t.Errorf("open before:\n%s\nafter:\n%s", before, after)
		}
	})
}

// collect lets the garbage collector close what tests have left behind.
func collect() {
	for round := 0; round < 3; round++ {
		collected := make(chan bool)
		runtime.SetFinalizer(&[]*int{nil}, func(*[]*int) { close(collected) })
		runtime.GC()
		<-collected
	}
}

func memfd(t *testing.T, content string, flags uintptr) *os.File {
	t.Helper()
	fd, err := memfdCreate("test", flags)
	check(t, err)
	check(t, fillMemfd(fd, []byte(content)))
	return os.NewFile(uintptr(fd), "memfd")
}

func content(t *testing.T, file *os.File) string {
	t.Helper()
	info, err := file.Stat()
	check(t, err)
	bytes := make([]byte, info.Size())
	_, err = file.ReadAt(bytes, 0)
	check(t, err)
	return string(bytes)
}

// rawSend sends bytes and files as they are, as a foreign program would.
func rawSend(t *testing.T, e *end, packet []byte, files []*os.File) {
	t.Helper()
	fd, err := e.acquire()
	check(t, err)
	defer e.release()
	var fds []int
	for _, file := range files {
		fds = append(fds, int(file.Fd()))
	}
	check(t, sendPacket(fd, packet, fds))
	runtime.KeepAlive(files)
}

// rawReceive receives one packet as it is.
func rawReceive(t *testing.T, e *end) ([]byte, []*os.File) {
	t.Helper()
	fd, err := e.acquire()
	check(t, err)
	defer e.release()
	buffer := new(inBuffer)
	packet, err := recvPacket(fd, buffer)
	check(t, err)
	var files []*os.File
	for _, fd := range packet.fds {
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprint("received ", fd)))
	}
	return buffer.bytes[:packet.len], files
}

func closeFiles(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

func socketOf(t *testing.T, family, kind int) *os.File {
	t.Helper()
	fd, err := syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, 0)
	check(t, err)
	return os.NewFile(uintptr(fd), "socket")
}
