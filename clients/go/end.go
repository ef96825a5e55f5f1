//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// end is a socket that goroutines share: closed when Close was called and the last call that uses it is over,
// so that no call ever meets a descriptor of the same number that is something else by then.
type end struct {
	mu     sync.Mutex
	fd     int
	users  int
	closed bool
	// The longest text in bytes.
	limit int
	// Those who wait and want to know when it is closed.
	sleepers map[*waker]struct{}
}

func newEnd(fd, limit int) *end {
	e := &end{fd: fd, limit: limit}
	// Whoever uses the descriptor holds e, so this cannot close it under them.
	runtime.SetFinalizer(e, func(e *end) { _ = e.close() })
	return e
}

// adoptEnd takes over a descriptor that came from elsewhere, after checking what it is. On failure it
// closes it.
func adoptEnd(fd int) (*end, error) {
	if err := checkSocket(fd); err != nil {
		closeFd(fd)
		return nil, err
	}
	return newEnd(fd, DefaultMaxMessageLen), nil
}

// acquire keeps the descriptor open until release.
func (e *end) acquire() (int, error) {
	if e == nil {
		return -1, ErrClosed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return -1, ErrClosed
	}
	e.users++
	return e.fd, nil
}

func (e *end) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users--
	e.closeIfUnused()
}

func (e *end) closeIfUnused() {
	if e.closed && e.users == 0 && e.fd >= 0 {
		closeFd(e.fd)
		e.fd = -1
		runtime.SetFinalizer(e, nil)
	}
}

func (e *end) close() error {
	if e == nil {
		return ErrClosed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.closed = true
	for w := range e.sleepers {
		w.wake()
	}
	e.closeIfUnused()
	return nil
}

func (e *end) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *end) maxMessageLen() int {
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.limit
}

func (e *end) setMaxMessageLen(limit int) {
	if e == nil {
		return
	}
	if limit < 0 {
		limit = 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.limit = limit
}

// errWouldBlock is what until says instead of waiting.
var errWouldBlock = errors.New("would block")

// A full socket wakes those who wait for it only once three quarters of its buffer are free, while a send
// succeeds as soon as any of it is. So senders look for themselves, now and then.
const (
	firstRetry = time.Millisecond
	lastRetry  = 64 * time.Millisecond
)

// until runs attempt until it has a result, and waits for one of events in between. attempt never waits: it
// says EAGAIN. Waiting ends early with ErrClosed, ErrTimedOut, or the context's error.
func (e *end) until(ctx context.Context, events int16, mayWait bool, attempt func(fd int) error) error {
	fd, err := e.acquire()
	if err != nil {
		return err
	}
	defer e.release()
	if ctx == nil {
		ctx = context.Background()
	}
	var sleeper *sleeper
	retry := firstRetry
	for {
		// First of all, so that a loop of calls that always find something to do ends as well.
		if err := whyStop(ctx); mayWait && err != nil {
			return err
		}
		switch err := attempt(fd); err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			return err
		}
		if !mayWait {
			return errWouldBlock
		}
		if sleeper == nil {
			sleeper = e.startSleeping(ctx)
			defer sleeper.stop()
			// What woke nobody, because nobody slept.
			if e.isClosed() {
				return ErrClosed
			}
		}
		timeout := time.Duration(-1)
		if events == pollOut {
			timeout = retry
			if retry *= 2; retry > lastRetry {
				retry = lastRetry
			}
		}
		if err := sleeper.sleep(fd, events, timeout); err != nil {
			return &IOError{"wait for the other side", err}
		}
		if e.isClosed() {
			return ErrClosed
		}
	}
}

func whyStop(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		// The context's own timer may be late.
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			return ErrTimedOut
		}
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ErrTimedOut
	}
	return fmt.Errorf("wormhole: gave up waiting for the other side: %w", err)
}

// sleeper is one call that waits: for the socket, for its context, and for Close.
type sleeper struct {
	end   *end
	ctx   context.Context
	waker *waker // nil: the process is out of descriptors
	// Ends the goroutine that watches the context, and tells that it has ended.
	over, watched chan struct{}
}

func (e *end) startSleeping(ctx context.Context) *sleeper {
	s := &sleeper{end: e, ctx: ctx, waker: takeWaker()}
	if s.waker == nil {
		return s
	}
	e.mu.Lock()
	if e.sleepers == nil {
		e.sleepers = make(map[*waker]struct{})
	}
	e.sleepers[s.waker] = struct{}{}
	e.mu.Unlock()
	if ctx.Done() != nil {
		s.over, s.watched = make(chan struct{}), make(chan struct{})
		go func() {
			defer close(s.watched)
			select {
			case <-ctx.Done():
				s.waker.wake()
			case <-s.over:
			}
		}()
	}
	return s
}

func (s *sleeper) stop() {
	if s.waker == nil {
		return
	}
	if s.over != nil {
		close(s.over)
		<-s.watched
	}
	s.end.mu.Lock()
	delete(s.end.sleepers, s.waker)
	s.end.mu.Unlock()
	s.waker.giveBack() // nobody knows of it any more
}

func (s *sleeper) sleep(fd int, events int16, timeout time.Duration) error {
	if deadline, ok := s.ctx.Deadline(); ok {
		left := time.Until(deadline)
		if left < 0 {
			left = 0
		}
		if timeout < 0 || left < timeout {
			timeout = left
		}
	}
	fds := make([]pollFd, 1, 2)
	fds[0] = pollFd{fd: int32(fd), events: events}
	if s.waker != nil {
		fds = append(fds, pollFd{fd: int32(s.waker.fd), events: pollIn})
	} else if timeout < 0 || timeout > lastRetry {
		timeout = lastRetry // nothing will wake it, so it looks for itself
	}
	if err := poll(fds, timeout); err != nil && err != syscall.EINTR {
		return err
	}
	return nil
}

// waker is an eventfd that ends a poll.
type waker struct {
	fd int
}

func (w *waker) wake() {
	one := [8]byte{1}
	_, _, _ = syscall.Syscall(syscall.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
}

// spareWakers are kept open for the next call that waits.
var spareWakers struct {
	sync.Mutex
	list []*waker
}

const maxSpareWakers = 8

// takeWaker gives nil if the process is out of descriptors.
func takeWaker() *waker {
	spareWakers.Lock()
	defer spareWakers.Unlock()
	if last := len(spareWakers.list) - 1; last >= 0 {
		w := spareWakers.list[last]
		spareWakers.list = spareWakers.list[:last]
		return w
	}
	fd, err := eventFd()
	if err != nil {
		return nil
	}
	return &waker{fd: fd}
}

func (w *waker) giveBack() {
	var count [8]byte
	_, _, _ = syscall.Syscall(syscall.SYS_READ, uintptr(w.fd), uintptr(unsafe.Pointer(&count)), 8)
	spareWakers.Lock()
	defer spareWakers.Unlock()
	if len(spareWakers.list) < maxSpareWakers {
		spareWakers.list = append(spareWakers.list, w)
	} else {
		closeFd(w.fd)
	}
}
