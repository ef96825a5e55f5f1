//go:build linux

package wormhole

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type childArgs struct {
	Tuple
	Question string
	Answer   *Sender[string]
	Input    *os.File
}

// TestMain is also the program that the tests start.
func TestMain(m *testing.M) {
	if os.Getenv("WORMHOLE_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	if program := sandboxes[os.Getenv("WORMHOLE_TEST_CHILD")]; program != nil {
		if err := program(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Print("as expected")
		os.Exit(0)
	}
	args, err := Inherit[childArgs]()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, again := Inherit[childArgs]()
	bytes := make([]byte, 5)
	_, _ = args.Input.ReadAt(bytes, 0)
	sockets := 0
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if link, _ := os.Readlink("/proc/self/fd/" + entry.Name()); strings.HasPrefix(link, "socket:") {
			sockets++
		}
	}
	answer := fmt.Sprintf("%s %s, %d socket, %v", args.Question, bytes, sockets, again)
	err = args.Answer.Send(context.Background(), answer)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(within(t), os.Args[0])
	cmd.Env = append(os.Environ(), "WORMHOLE_TEST_CHILD=1")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func TestAProgramTakesWhatItIsHanded(t *testing.T) {
	noLeak(t)
	answer, answers := pair[string](t, Options{})
	other := memfd(t, "", 0)
	for i, length := range []int{10, 1_000_000} {
		kept := must[*os.File](t)(answer.File())
		sender := must[*Sender[string]](t)(SenderFromFile[string](kept))
		kept.Close()
		cmd := child(t)
		for j := 0; j < i; j++ {
			cmd.ExtraFiles = append(cmd.ExtraFiles, other)
		}
		question := strings.Repeat("?", length)
		check(t, Spawn(cmd, childArgs{Question: question, Answer: sender, Input: memfd(t, "input", 0)}))
		expect(t, sender.Close(), ErrClosed)
		got := must[string](t)(answers.Recv(within(t)))
		if got != question+" input, 1 socket, wormhole: nothing to inherit: it was taken before" {
			t.Errorf("found %s", got[length:])
		}
		check(t, cmd.Wait())
	}
	other.Close()
	answer.Close()
	_, err := answers.Recv(within(t))
	expect(t, err, ErrDisconnected)
	answers.Close()
}

func TestAProgramThatCannotBeStarted(t *testing.T) {
	noLeak(t)
	sender, receiver := pair[string](t, Options{})
	err := Spawn(exec.Command("/missing"), childArgs{Answer: sender, Input: memfd(t, "", 0)})
	var io *IOError
	if !errors.As(err, &io) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("found %v", err)
	}
	_, err = receiver.Recv(within(t))
	expect(t, err, ErrDisconnected)
	receiver.Close()
	err = Spawn(exec.Command("/missing"), childArgs{Question: "\xff", Input: memfd(t, "", 0)})
	var encode *EncodeError
	if !errors.As(err, &encode) {
		t.Errorf("found %v", err)
	}
}

func TestASocketThatThisProcessHasMadeIsNotInherited(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{})
	check(t, tx.Send(within(t), 5))
	check(t, tx.Close())
	fd := must[int](t)(rx.end.acquire())
	defer rx.end.release()
	must[int](t)(fcntl(fd, syscall.F_SETFD, 0))
	t.Setenv(inheritVariable, fmt.Sprint(fd))
	_, err := Inherit[int]()
	var not *NotInheritedError
	if !errors.As(err, &not) || !strings.Contains(err.Error(), "that this process has made itself") {
		t.Errorf("found %v", err)
	}
	if got := must[int](t)(rx.TryRecv()); got != 5 {
		t.Errorf("found %d", got)
	}
	check(t, rx.Close())
}

func TestNothingToInherit(t *testing.T) {
	null := must[*os.File](t)(os.Open("/dev/null"))
	defer null.Close()
	for value, expected := range map[string]string{
		"3":                    "names a foreign descriptor",
		"2":                    "WORMHOLE_FD=2 is no descriptor that can be inherited",
		"-1":                   "is no descriptor that can be inherited",
		"+5":                   "is no descriptor that can be inherited",
		"x\x1b":                "WORMHOLE_FD=x\\u001b is no descriptor",
		"":                     "is no descriptor that can be inherited",
		"99":                   "WORMHOLE_FD=99 names a closed descriptor",
		"18446744073709551616": "is no descriptor that can be inherited",
	} {
		cmd := child(t, "WORMHOLE_FD="+value)
		cmd.ExtraFiles = []*os.File{null}
		output, err := cmd.Output()
		if err == nil || !strings.Contains(string(output), expected) {
			t.Errorf("%q: found %s, expected %s", value, output, expected)
		}
	}
	output, _ := child(t).Output()
	if !bytes.Contains(output, []byte("the environment variable WORMHOLE_FD is not set")) {
		t.Errorf("found %s", output)
	}
	// A channel with nothing in it.
	tx, rx := pair[childArgs](t, Options{})
	file := must[*os.File](t)(rx.File())
	cmd := child(t, "WORMHOLE_FD=3")
	cmd.ExtraFiles = []*os.File{file}
	tx.Close()
	output, _ = cmd.Output()
	if !bytes.Contains(output, []byte("the channel is empty")) {
		t.Errorf("found %s", output)
	}
	file.Close()
}

func TestListenersAndConnections(t *testing.T) {
	noLeak(t)
	path := filepath.Join(t.TempDir(), "socket")
	for _, name := range []string{path, fmt.Sprintf("\x00wormhole-test-%d", os.Getpid())} {
		listener, err := Listen[string](name)
		check(t, err)
		_, _, err = listener.TryAccept()
		expect(t, err, ErrEmpty)
		if name == path {
			info, err := os.Stat(path)
			check(t, err)
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("open to others: %v", info.Mode())
			}
		}
		tx := must[*Sender[string]](t)(Connect[string](within(t), name))
		check(t, tx.Send(within(t), "hello"))
		rx, peer, err := listener.Accept(within(t))
		check(t, err)
		if peer.PID != os.Getpid() || peer.UID != os.Getuid() || peer.GID != os.Getgid() {
			t.Errorf("found %v", peer)
		}
		if got := must[string](t)(rx.Recv(within(t))); got != "hello" {
			t.Errorf("found %s", got)
		}
		// It is one-way.
		fd := must[int](t)(rx.end.acquire())
		expect(t, sendPacket(fd, []byte("x"), nil), syscall.EPIPE)
		rx.end.release()
		if _, err := Listen[string](name); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("found %v", err)
		}
		failed := make(chan error)
		go func() {
			_, _, err := listener.Accept(context.Background())
			failed <- err
		}()
		asleep(listener.end)
		check(t, listener.Close())
		expect(t, <-failed, ErrClosed)
		expect(t, listener.Close(), ErrClosed)
		_, err = Connect[string](within(t), name)
		var address *AddressError
		if !errors.As(err, &address) {
			t.Errorf("found %v", err)
		}
		tx.Close()
		_, err = rx.Recv(within(t))
		expect(t, err, ErrDisconnected)
		rx.Close()
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is still there")
	}
}

func TestNamesThatAreTaken(t *testing.T) {
	noLeak(t)
	directory := t.TempDir()
	path := filepath.Join(directory, "socket")
	// What a killed process leaves behind.
	listener, err := Listen[string](path)
	check(t, err)
	check(t, listener.end.close())
	listener, err = Listen[string](path)
	check(t, err)
	entries := must[[]os.DirEntry](t)(os.ReadDir(directory))
	if len(entries) != 1 {
		t.Errorf("found %v", entries)
	}
	// A file of that name which is somebody else's.
	check(t, os.Remove(path))
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, listener.Close())
	if _, err := Listen[string](path); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("found %v", err)
	}
	for _, name := range []string{"", "\x00", strings.Repeat("x", 108), "a\x00b", "\x00" + strings.Repeat("x", 108)} {
		if _, err := Listen[string](name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("found %v", err)
		}
		if _, err := Connect[string](within(t), name); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("found %v", err)
		}
	}
}

func TestConnectingToAFullQueueTimesOut(t *testing.T) {
	noLeak(t)
	name := fmt.Sprintf("\x00wormhole-full-%d", os.Getpid())
	a, err := newAddress(name)
	check(t, err)
	socket := socketOf(t, syscall.AF_UNIX, syscall.SOCK_SEQPACKET)
	defer socket.Close()
	check(t, a.raw.bind(int(socket.Fd())))
	check(t, syscall.Listen(int(socket.Fd()), 0))
	tx := must[*Sender[int]](t)(Connect[int](within(t), name))
	defer tx.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = Connect[int](ctx, name)
	expect(t, err, ErrTimedOut)
}
