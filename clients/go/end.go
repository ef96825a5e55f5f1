//go:build linux

package wormhole

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// end is a socket that goroutines share: closed when Close was called and the last call that uses it is over,
// so that no call ever meets a descriptor of the same number that is something else by then.
type end struct {
	mu     sync.Mutex
	fd     int
	users  int
	closed bool
	limits limits
	spin   spin
	// Closed by close, to wake the calls that wait.
	closing chan struct{}
	// The calls that sleep until the poller wakes one of them, the one that has waited longest first.
	waiters list.List // of *waiter
	// The poller's epoll knows the descriptor.
	registered bool
}

// limits are what one message may have, in bytes.
type limits struct {
	// Its text.
	message int
	// Its blobs together.
	blobs int64
}

func newEnd(fd int, limits limits) *end {
	e := &end{fd: fd, limits: limits, closing: make(chan struct{})}
	e.spin.limit.Store(int64(DefaultSpin))
	// Whoever uses the descriptor holds e, so this cannot close it under them.
	runtime.SetFinalizer(e, func(e *end) { _ = e.close() })
	return e
}

// adoptEnd takes over a descriptor that came from elsewhere, after checking what it is. On failure it
// closes it.
func adoptEnd(fd int, check func(fd int) error) (*end, error) {
	err := check(fd)
	if err == nil {
		fd, err = aboveStreams(fd)
	}
	if err != nil {
		closeFds([]int{fd})
		return nil, err
	}
	return newEnd(fd, defaultLimits), nil
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
		if e.registered {
			// Closing does not do it while another process has a copy of the socket.
			forget(e.fd)
		}
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
	close(e.closing)
	e.closeIfUnused()
	return nil
}

func (e *end) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *end) currentLimits() limits {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.limits
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
	e.limits.message = limit
}

func (e *end) setMaxBlobLen(limit int64) {
	if e == nil {
		return
	}
	if limit < 0 {
		limit = 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.limits.blobs = limit
}

// errWouldBlock is what until says instead of waiting.
var errWouldBlock = errors.New("would block")

// until runs attempt until it has a result, and waits for one of events in between. attempt never waits: it
// says EAGAIN. Waiting ends early with ErrClosed, ErrTimedOut, or the context's error; then nothing has been sent or
// received, because each of the two is a single system call.
func (e *end) until(ctx context.Context, events int16, mayWait bool, attempt func(fd int) error) error {
	fd, err := e.acquire()
	if err != nil {
		return err
	}
	defer e.release()
	if ctx == nil {
		ctx = context.Background()
	}
	var spinning spinning
	var sleep *sleep
	for {
		// First of all, so that a loop of calls that always find something to do ends as well.
		if mayWait {
			if err := whyStop(ctx); err != nil {
				return err
			}
			select {
			case <-e.closing:
				return ErrClosed
			default:
			}
		}
		switch err := attempt(fd); err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		case nil:
			spinning.learn(&e.spin)
			return nil
		default:
			return err
		}
		if !mayWait {
			return errWouldBlock
		}
		if sleep == nil {
			if spinning.goesOn(&e.spin) {
				continue
			}
			sleep = newSleep(e, fd, events)
			defer sleep.leave()
		}
		if err := sleep.once(ctx); err != nil {
			return err
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
