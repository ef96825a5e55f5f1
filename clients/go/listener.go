//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The longest name: sun_path has 108 bytes, one of which is the NUL that ends a path or begins an abstract name.
const maxName = 107

// address is the name of a listening socket.
type address struct {
	raw rawAddress
	// For people.
	text string
	// Empty for an abstract name.
	path string
}

func newAddress(name string) (*address, error) {
	abstract := strings.HasPrefix(name, "\x00")
	bare := strings.TrimPrefix(name, "\x00")
	a := &address{text: bare}
	if abstract {
		a.text = "@" + bare
	} else {
		a.path = bare
	}
	var reason string
	switch {
	case bare == "":
		reason = "the name of a socket cannot be empty"
	case len(bare) > maxName:
		reason = fmt.Sprintf("the name of a socket has at most %d bytes, this one has %d", maxName, len(bare))
	case !abstract && strings.Contains(bare, "\x00"):
		reason = "a path cannot contain NUL"
	}
	if reason != "" {
		return nil, a.failed("use", fmt.Errorf("%s: %w", reason, syscall.EINVAL))
	}
	a.raw.raw.Family = syscall.AF_UNIX
	start := 0
	if abstract {
		start = 1
	}
	for i := 0; i < len(bare); i++ {
		a.raw.raw.Path[start+i] = int8(bare[i])
	}
	a.raw.size = uintptr(2 + len(bare) + 1) // with the NUL
	return a, nil
}

func (a *address) failed(operation string, err error) error {
	return &AddressError{operation, excerpt(a.text), err}
}

// Connect connects to a listener and gives the sender of a new channel, whose receiver the listener accepts.
//
// The name is a path, or an abstract name if it begins with a NUL ("\x00my-server"). A message may be sent at
// once. It waits while the queue of those who want to connect is full.
//
// Errors: an [*AddressError], [ErrTimedOut], and what the context says when it is cancelled.
func Connect[T any](ctx context.Context, name string) (*Sender[T], error) {
	a, err := newAddress(name)
	if err != nil {
		return nil, err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	fd, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &Sender[T]{newEnd(fd, defaultLimits)}, nil
}

func (a *address) connect(ctx context.Context) (connected int, err error) {
	const operation = "connect to"
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, a.failed(operation, err)
	}
	defer func() {
		if err != nil {
			closeFd(fd)
		}
	}()
	if fd, err = aboveStreams(fd); err != nil {
		return -1, a.failed(operation, err)
	}
	// No other process shares this socket yet, so it may have a timeout for a moment: nothing else ends connect,
	// and polling tells nothing about another socket's queue.
	for {
		if err := whyStop(ctx); err != nil {
			return -1, err
		}
		wait := lastRetry
		if deadline, ok := ctx.Deadline(); ok {
			if left := time.Until(deadline); left < wait {
				wait = left
			}
		}
		if wait < time.Microsecond {
			wait = time.Microsecond // zero would mean forever
		}
		if err := setSendTimeout(fd, wait); err != nil {
			return -1, a.failed(operation, err)
		}
		switch err := a.raw.connect(fd); err {
		case nil:
			if err := setSendTimeout(fd, 0); err != nil {
				return -1, a.failed(operation, err)
			}
			return fd, nil
		case syscall.EINTR, syscall.EAGAIN:
		default:
			return -1, a.failed(operation, err)
		}
	}
}

func setSendTimeout(fd int, timeout time.Duration) error {
	spec := syscall.NsecToTimeval(int64(timeout))
	return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &spec)
}

// Peer is the process that connected, according to the kernel, when it connected.
type Peer struct {
	// PID is 0 if the process runs in a pid namespace that this one cannot see.
	PID      int
	UID, GID int
}

// Listener listens at a name for processes that connect, each of which becomes a channel.
//
// A *Listener may be a field of a message, as the end of a channel may: all copies share one queue, and each client is
// accepted by one of them. The socket file is removed by the one who made it, when it calls Close. [CloseAll] leaves the
// file of a listener that has been sent.
type Listener[T any] struct {
	end  *end
	file *socketFile
	// It has been sent.
	given atomic.Bool
	// Held by the call that takes a client.
	taking sync.Mutex
}

// ListenerFromFile makes a listener of a socket that listens already, for instance one that a service manager hands over
// (systemd's socket activation, with ListenSequentialPacket=), and duplicates its descriptor. Whoever made the socket
// file removes it. It fails with a [*NotAChannelError] unless it is a listening unix SOCK_SEQPACKET socket.
func ListenerFromFile[T any](file *os.File) (*Listener[T], error) {
	e, err := endFromFile(file, checkListening)
	if err != nil {
		return nil, err
	}
	return &Listener[T]{end: e}, nil
}

// File gives a duplicate of the descriptor.
func (l *Listener[T]) File() (*os.File, error) {
	if l == nil {
		return nil, ErrClosed
	}
	return l.end.file("wormhole listener")
}

// MarshalJSON fails: a listener can only travel in a message of this package.
func (l *Listener[T]) MarshalJSON() ([]byte, error) { return nil, errOutsideMessage }

// UnmarshalJSON fails: a listener can only travel in a message of this package.
func (l *Listener[T]) UnmarshalJSON([]byte) error { return errOutsideMessage }

func (l *Listener[T]) hold() (int, func(), error) { return l.end.hold() }

func (l *Listener[T]) adopt(fd int) (err error) {
	l.end, err = adoptEnd(fd, checkListening)
	return err
}

func (l *Listener[T]) give() { l.given.Store(true) }

// closeGiven is Close that leaves the file if it has been sent.
func (l *Listener[T]) closeGiven() {
	if l.given.Load() && l.end != nil {
		_ = l.end.close()
	} else {
		_ = l.Close()
	}
}

// Listen listens at a path, or at an abstract name, which begins with a NUL.
//
// The socket file has mode 0600 from the first moment, so only processes of the same user can connect. Close
// removes it. A stale one that a killed process has left behind is replaced.
//
// Errors: an [*AddressError].
func Listen[T any](name string) (*Listener[T], error) {
	a, err := newAddress(name)
	if err != nil {
		return nil, err
	}
	const operation = "listen at"
	// accept has no flag for a single call, as recvmsg has. So this socket, which only Accept uses, does not block from
	// its creation on.
	const kind = syscall.SOCK_SEQPACKET | syscall.SOCK_CLOEXEC | syscall.SOCK_NONBLOCK
	fd, err := syscall.Socket(syscall.AF_UNIX, kind, 0)
	if err == nil {
		fd, err = aboveStreamsOrClosed(fd)
	}
	if err != nil {
		return nil, a.failed(operation, err)
	}
	// bind makes the file with the mode of the socket's own inode, less the umask.
	if err = syscall.Fchmod(fd, 0o600); err != nil {
		closeFd(fd)
		return nil, a.failed(operation, err)
	}
	var file *socketFile
	if a.path == "" {
		err = a.raw.bind(fd)
	} else {
		file, err = a.bindFile(fd)
	}
	if err == nil {
		// The kernel cuts the number to net.core.somaxconn.
		err = syscall.Listen(fd, 1<<30)
	}
	if err != nil {
		file.remove()
		closeFd(fd)
		return nil, a.failed(operation, err)
	}
	return &Listener[T]{end: newEnd(fd, limits{}), file: file}, nil
}

// Accept waits for the next client, and gives the receiver of its channel and who it is.
//
// A socket from elsewhere may be one that blocks, and no flag is set on it here, because others share it. Then a call that
// has seen a client which another process takes waits for the next one, whatever its context and Close say.
//
// Errors: [ErrTimedOut], [ErrClosed], an [*IOError], and what the context says when it is cancelled.
func (l *Listener[T]) Accept(ctx context.Context) (*Receiver[T], Peer, error) {
	return l.accept(ctx, true)
}

// TryAccept is Accept that says [ErrEmpty] instead of waiting.
func (l *Listener[T]) TryAccept() (*Receiver[T], Peer, error) {
	return l.accept(context.Background(), false)
}

func (l *Listener[T]) accept(ctx context.Context, mayWait bool) (*Receiver[T], Peer, error) {
	if l == nil {
		return nil, Peer{}, ErrClosed
	}
	connection := -1
	err := l.end.until(ctx, pollIn, mayWait, func(fd int) (err error) {
		// Whoever shares the socket may have made it one that blocks. So one call at a time looks and takes what it has
		// seen. It waits only if another process takes the client in between, or another Listener of the same socket; and
		// the others of this one do not wait for it.
		alone := l.taking.TryLock()
		if alone {
			defer l.taking.Unlock()
		}
		canAsk := []pollFd{{fd: int32(fd), events: pollIn}}
		switch err := poll(canAsk, 0); {
		case err == syscall.EINTR:
			return err
		case err == nil && canAsk[0].revents == 0 || err != nil && !alone:
			return syscall.EAGAIN
		case !alone:
			runtime.Gosched()
			return syscall.EINTR // there are more clients, or there soon is one less
		}
		connection, _, err = syscall.Accept4(fd, syscall.SOCK_CLOEXEC)
		if err == syscall.ECONNABORTED {
			return syscall.EINTR // that client has left: on to the next one
		}
		return err
	})
	if errno, ok := err.(syscall.Errno); ok {
		err = &IOError{"accept a client", errno}
	} else if err == errWouldBlock {
		err = ErrEmpty
	}
	if err != nil {
		return nil, Peer{}, err
	}
	connection, err = aboveStreamsOrClosed(connection)
	if err != nil {
		return nil, Peer{}, &IOError{"accept a client", err}
	}
	// What arrives here is one-way.
	err = syscall.Shutdown(connection, syscall.SHUT_WR)
	var who *syscall.Ucred
	if err == nil {
		who, err = syscall.GetsockoptUcred(connection, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}
	if err != nil {
		closeFd(connection)
		return nil, Peer{}, &IOError{"accept a client", err}
	}
	peer := Peer{PID: int(who.Pid), UID: int(who.Uid), GID: int(who.Gid)}
	return &Receiver[T]{newEnd(connection, defaultLimits)}, peer, nil
}

// Close stops listening, and removes the socket file if this listener made it and it still is the same one. The channels that
// it has accepted stay. Calls that wait return [ErrClosed].
func (l *Listener[T]) Close() error {
	if l == nil || l.end == nil || l.end.isClosed() {
		return ErrClosed
	}
	// While its socket is open: until then nobody takes the file for stale.
	l.file.remove()
	return l.end.close()
}

// socketFile is the file that a socket is bound to.
type socketFile struct {
	// Absolute, because the working directory may change.
	path     string
	dev, ino uint64
}

func (f *socketFile) remove() {
	if f == nil {
		return
	}
	var found syscall.Stat_t
	err := syscall.Lstat(f.path, &found)
	if err == nil && uint64(found.Dev) == f.dev && found.Ino == f.ino {
		_ = os.Remove(f.path) // what cannot be removed is stale
	}
}

// bindFile binds a socket to its path. A socket file there that no process uses any more is replaced.
func (a *address) bindFile(fd int) (*socketFile, error) {
	path, err := filepath.Abs(a.path)
	if err != nil {
		return nil, err
	}
	err = a.raw.bind(fd)
	if err == syscall.EADDRINUSE {
		// Two processes could find the same file stale, and the slower one remove what the faster one has just
		// bound. A name that is free needs no lock: bind takes it or fails.
		var unlock func()
		if unlock, err = lockFile(path + ".wormhole-lock"); err != nil {
			return nil, err
		}
		defer unlock()
		if err = a.removeIfStale(path); err != nil {
			return nil, err
		}
		err = a.raw.bind(fd)
	}
	if err != nil {
		return nil, err
	}
	var made syscall.Stat_t
	if err := syscall.Lstat(path, &made); err != nil {
		return nil, err
	}
	return &socketFile{path, uint64(made.Dev), made.Ino}, nil
}

func (a *address) removeIfStale(path string) error {
	var found syscall.Stat_t
	switch err := syscall.Lstat(path, &found); {
	case err == syscall.ENOENT:
		return nil
	case err != nil:
		return err
	case found.Mode&syscall.S_IFMT != syscall.S_IFSOCK:
		return fmt.Errorf("a file that is not a socket is there: %w", syscall.EEXIST)
	}
	// Connecting to a socket of another type fails as soon as the kernel has found it, so the one who listens
	// does not notice.
	probe, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer closeFd(probe)
	switch err := a.raw.connect(probe); err {
	case syscall.ECONNREFUSED, syscall.ENOENT:
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil // somebody else has removed it meanwhile
	case nil, syscall.EPROTOTYPE, syscall.EAGAIN:
		return syscall.EADDRINUSE
	default:
		return err
	}
}

// lockFile takes the right to replace a socket file, of one process at a time. It never waits: whoever holds the
// lock is about to listen.
func lockFile(path string) (unlock func(), err error) {
	const flags = syscall.O_CREAT | syscall.O_RDWR | syscall.O_CLOEXEC | syscall.O_NOFOLLOW
	for {
		fd, err := syscall.Open(path, flags, 0o600)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(fd, lockExclusive); err != nil {
			closeFd(fd)
			if err == syscall.EWOULDBLOCK {
				err = syscall.EADDRINUSE
			}
			return nil, err
		}
		// The holder before may have removed it between the two calls.
		var stat syscall.Stat_t
		if err := syscall.Fstat(fd, &stat); err != nil {
			closeFd(fd)
			return nil, err
		}
		if stat.Nlink > 0 {
			return func() {
				_ = os.Remove(path)
				// To close it is not enough: a process that was forked meanwhile has a copy.
				_ = syscall.Flock(fd, syscall.LOCK_UN)
				closeFd(fd)
			}, nil
		}
		closeFd(fd)
	}
}
