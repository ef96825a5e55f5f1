//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
)

// The environment variable that names the descriptor with what a program is handed.
const inheritVariable = "WORMHOLE_FD"

// Descriptors below are the standard streams.
const firstInherited = 3

// Spawn starts a program, as cmd.Start does, and hands it args, which may hold channel ends and other descriptors.
// There, [Inherit] takes them, or inherit in a program in another language.
//
// It closes what args holds in this process, whether it succeeds or not, as [CloseAll] does: no copy of an end stays
// behind that would keep a channel open when the program ends. The program gets one descriptor more than those in
// cmd.ExtraFiles, whose number the environment variable WORMHOLE_FD tells.
//
// Errors, without a program: those of [Sender.Send], and an [*IOError] if it cannot be started.
func Spawn[A any](cmd *exec.Cmd, args A) error {
	defer CloseAll(args)
	sender, receiver, err := Channel[A]()
	if err != nil {
		return err
	}
	defer receiver.Close()
	// One packet fits an empty channel at once, however long the message.
	err = sender.Send(context.Background(), args)
	_ = sender.Close()
	if err != nil {
		return err
	}
	inheritable, err := receiver.File()
	if err != nil {
		return err
	}
	defer inheritable.Close()
	before := cmd.ExtraFiles
	cmd.ExtraFiles = append(before[:len(before):len(before)], inheritable)
	defer func() { cmd.ExtraFiles = before }()
	number := firstInherited + len(before)
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("%s=%d", inheritVariable, number))
	if err := cmd.Start(); err != nil {
		return &IOError{"start a program", err}
	}
	return nil
}

var inheritance struct {
	sync.Mutex
	taken bool
}

// Inherit takes what this program was handed by the one that started it, with [Spawn] or with spawn_command of the
// Rust crate.
//
// It can be done once, and never waits. All descriptors are close-on-exec from here on. Until this is called, programs
// that this one starts with package syscall inherit the descriptor, so call it first thing in main.
//
// Errors: a [*NotInheritedError] if there is nothing to take, and nothing is changed; a [*DecodeError] and the others
// of [Receiver.Recv], and then the value is lost. An [*IOError] may also say that a sandbox denies to look at the
// descriptor; then nothing is changed either.
func Inherit[A any]() (args A, err error) {
	fd, err := takeInherited()
	if err != nil {
		return args, err
	}
	receiver := &Receiver[A]{newEnd(fd, defaultLimits)}
	defer receiver.Close()
	args, err = receiver.TryRecv()
	if errors.Is(err, ErrEmpty) || errors.Is(err, ErrDisconnected) {
		return args, &NotInheritedError{"the channel is empty"}
	}
	return args, err
}

func takeInherited() (int, error) {
	inheritance.Lock()
	defer inheritance.Unlock()
	if inheritance.taken {
		return -1, &NotInheritedError{"it was taken before"}
	}
	value, ok := os.LookupEnv(inheritVariable)
	if !ok {
		return -1, &NotInheritedError{fmt.Sprintf("the environment variable %s is not set", inheritVariable)}
	}
	named := fmt.Sprintf("%s=%s", inheritVariable, excerpt(value))
	number, err := strconv.ParseUint(value, 10, 31)
	if err != nil || number < firstInherited {
		return -1, &NotInheritedError{named + " is no descriptor that can be inherited"}
	}
	fd := int(number)
	flags, err := fcntl(fd, syscall.F_GETFD, 0)
	if err != nil {
		return -1, &NotInheritedError{named + " names a closed descriptor"}
	}
	// Whatever this program has opened itself by that number.
	if flags&syscall.FD_CLOEXEC != 0 {
		return -1, &NotInheritedError{named + " names a foreign descriptor: it is close-on-exec"}
	}
	if err := checkReceiver(fd); err != nil {
		var not *NotAChannelError
		if errors.As(err, &not) {
			return -1, &NotInheritedError{named + " names a foreign descriptor: " + not.Reason}
		}
		return -1, err
	}
	maker, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return -1, &IOError{"look up which process has made an inherited descriptor", err}
	}
	// One that this program owns already.
	if int(maker.Pid) == os.Getpid() {
		return -1, &NotInheritedError{named + " names a descriptor that this process has made itself"}
	}
	if _, err := fcntl(fd, syscall.F_SETFD, syscall.FD_CLOEXEC); err != nil {
		return -1, &IOError{"make an inherited descriptor close-on-exec", err}
	}
	inheritance.taken = true
	return fd, nil
}
