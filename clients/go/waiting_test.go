//go:build linux

package wormhole

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// queued waits until so many calls of e sleep.
func queued(e *end, count int) {
	for started := time.Now(); ; {
		if time.Since(started) > time.Minute {
			panic("no call has gone to sleep")
		}
		e.mu.Lock()
		waiters := e.waiters.Len()
		e.mu.Unlock()
		if waiters >= count {
			return
		}
		runtime.Gosched()
	}
}

// inUse waits until some call of e has begun.
func inUse(e *end) {
	for started := time.Now(); ; {
		if time.Since(started) > time.Minute {
			panic("no call has begun")
		}
		e.mu.Lock()
		users := e.users
		e.mu.Unlock()
		if users > 0 {
			return
		}
		runtime.Gosched()
	}
}

func TestTwentyThousandGoroutinesWaitWithoutAThreadEach(t *testing.T) {
	noLeak(t)
	const channels, each = 100, 200
	threads := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		check(t, err)
		return len(entries)
	}
	before := threads()
	ctx := within(t)
	var group sync.WaitGroup
	var count atomic.Int64
	var senders []*Sender[int]
	var receivers []*Receiver[int]
	for c := 0; c < channels; c++ {
		tx, rx := pair[int](t, Options{})
		senders, receivers = append(senders, tx), append(receivers, rx)
		for i := 0; i < each; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				if _, err := rx.Recv(ctx); err != nil {
					t.Error(err)
				}
				count.Add(1)
			}()
		}
	}
	for _, rx := range receivers {
		queued(rx.end, each)
	}
	if now := threads(); now > before+100 {
		t.Errorf("%d threads, %d before", now, before)
	}
	for i := 0; i < each; i++ {
		for _, tx := range senders {
			check(t, tx.Send(ctx, i))
		}
	}
	group.Wait()
	if count.Load() != channels*each {
		t.Errorf("%d messages", count.Load())
	}
	for c := range senders {
		_, err := receivers[c].TryRecv()
		expect(t, err, ErrEmpty)
		senders[c].Close()
		receivers[c].Close()
	}
}

func TestCancelledReceivesLoseNothing(t *testing.T) {
	noLeak(t)
	type message struct {
		Number int
		File   *os.File
	}
	tx, rx := pair[message](t, Options{})
	const messages, receivers = 4000, 8
	ctx := within(t)
	file := memfd(t, "", 0)
	go func() {
		defer tx.Close()
		defer file.Close()
		for i := 0; i < messages; i++ {
			if err := tx.Send(ctx, message{i, file}); err != nil {
				t.Error(err)
				return
			}
			if i%3 == 0 {
				runtime.Gosched() // so that receivers wait now and then
			}
		}
	}()
	var counts [messages]atomic.Int32
	var cancelled atomic.Int64
	var group sync.WaitGroup
	for r := 0; r < receivers; r++ {
		group.Add(1)
		go func(r int) {
			defer group.Done()
			for round := 0; ; round++ {
				mine, cancel := context.WithCancel(ctx)
				go func(yields int) {
					for i := 0; i < yields; i++ {
						runtime.Gosched()
					}
					cancel()
				}((round + r) % 5)
				got, err := rx.Recv(mine)
				cancel()
				switch {
				case err == nil:
					counts[got.Number].Add(1)
					CloseAll(got)
				case errors.Is(err, context.Canceled):
					cancelled.Add(1)
				case err == ErrDisconnected:
					return
				default:
					t.Error(err)
					return
				}
			}
		}(r)
	}
	group.Wait()
	for i := range counts {
		if count := counts[i].Load(); count != 1 {
			t.Fatalf("message %d came %d times", i, count)
		}
	}
	if cancelled.Load() == 0 {
		t.Error("no receive was cancelled")
	}
	rx.Close()
}

func TestACancelledCallThatWasWokenWakesTheNext(t *testing.T) {
	noLeak(t)
	for round := 0; round < 300; round++ {
		tx, rx := pair[int](t, Options{})
		ctx, cancel := context.WithCancel(within(t))
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := rx.Recv(ctx)
			first <- err
		}()
		queued(rx.end, 1)
		go func() {
			_, err := rx.Recv(within(t))
			second <- err
		}()
		queued(rx.end, 2)
		// At once: the poller tells the first, which gives up.
		go cancel()
		check(t, tx.Send(within(t), 1))
		err := <-first
		if err == nil {
			check(t, tx.Send(within(t), 2)) // it was quicker
		} else {
			expect(t, err, context.Canceled)
		}
		check(t, <-second)
		tx.Close()
		rx.Close()
	}
}

func TestCancelledSendsSendNothing(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{Buffer: 4096})
	sent := 0
	for tx.TrySend(sent) == nil {
		sent++
	}
	for i := 0; i < 20; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		failed := make(chan error)
		go func() { failed <- tx.Send(ctx, -1) }()
		asleep(tx.end)
		cancel()
		expect(t, <-failed, context.Canceled)
	}
	tx.Close()
	for i := 0; i < sent; i++ {
		if got := must[int](t)(rx.Recv(within(t))); got != i {
			t.Fatalf("found %d, expected %d", got, i)
		}
	}
	_, err := rx.Recv(within(t))
	expect(t, err, ErrDisconnected)
	rx.Close()
}

func TestClosingEndsAllCallsThatWait(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{Buffer: 4096})
	listener, err := Listen[int]("\x00wormhole-closing-" + t.TempDir())
	check(t, err)
	for tx.TrySend(0) == nil {
	}
	full, idle := pair[int](t, Options{})
	const each = 50
	failed := make(chan error)
	for i := 0; i < each; i++ {
		go func() { failed <- tx.Send(within(t), 1) }()
		go func() { _, err := idle.Recv(within(t)); failed <- err }()
		go func() { _, _, err := listener.Accept(within(t)); failed <- err }()
	}
	queued(tx.end, each)
	queued(idle.end, each)
	queued(listener.end, each)
	check(t, tx.Close())
	check(t, idle.Close())
	check(t, listener.Close())
	for i := 0; i < 3*each; i++ {
		expect(t, <-failed, ErrClosed)
	}
	// Really closed: the other side knows.
	expect(t, full.Send(within(t), 1), ErrDisconnected)
	for err = nil; err == nil; _, err = rx.TryRecv() {
	}
	expect(t, err, ErrDisconnected)
	full.Close()
	rx.Close()
}

func TestClosingEndsACallThatSpins(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{Spin: time.Hour, Buffer: 4096})
	for tx.TrySend(0) == nil {
	}
	other, idle := pair[int](t, Options{Spin: time.Hour})
	failed := make(chan error)
	for _, e := range []*end{tx.end, idle.end} {
		e.spin.score.Store(mostScore)
	}
	go func() { failed <- tx.Send(within(t), 1) }()
	go func() { _, err := idle.Recv(within(t)); failed <- err }()
	for _, e := range []*end{tx.end, idle.end} {
		inUse(e)
		check(t, e.close())
		expect(t, <-failed, ErrClosed)
	}
	other.Close()
	rx.Close()
}

// watched counts what the epoll of the poller watches.
func watched(t *testing.T) int {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", must[int](t)(poller.start()))))
	return strings.Count(string(text), "tfd:")
}

func TestAnEndThatIsClosedIsNotWatchedAlthoughOthersHaveIt(t *testing.T) {
	noLeak(t)
	before := watched(t)
	tx, rx := pair[int](t, Options{})
	copied := must[*os.File](t)(rx.File()) // as another process has
	ended := make(chan error)
	go func() { _, err := rx.Recv(within(t)); ended <- err }()
	asleep(rx.end)
	if now := watched(t); now != before+1 {
		t.Errorf("%d are watched, %d before", now, before)
	}
	rx.Close()
	expect(t, <-ended, ErrClosed)
	if now := watched(t); now != before {
		t.Errorf("%d are watched, %d before", now, before)
	}
	copied.Close()
	tx.Close()
}

func TestAnEndThatHasWaitedIsCollected(t *testing.T) {
	noLeak(t)
	func() {
		tx, rx, err := Channel[int]()
		check(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer cancel()
		_, err = rx.Recv(ctx)
		expect(t, err, ErrTimedOut)
		runtime.KeepAlive(tx)
	}()
	collect()
	poller.mu.Lock()
	defer poller.mu.Unlock()
	if len(poller.ends) != 0 {
		t.Errorf("the poller has %d ends", len(poller.ends))
	}
}

func TestWithoutAPollerCallsLookForThemselves(t *testing.T) {
	noLeak(t)
	tx, rx := pair[int](t, Options{})
	s := newSleep(rx.end, rx.end.fd, pollIn)
	// No descriptor that an epoll takes.
	s.fd = -1
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	for i := 0; i < 3; i++ {
		check(t, s.once(ctx))
	}
	if s.retry != 8*firstRetry {
		t.Errorf("found %v", s.retry)
	}
	s.leave()
	tx.Close()
	rx.Close()
}

func TestItTakesSomeQuickAnswersToSpinAndOneInVainToStop(t *testing.T) {
	var s spin
	s.limit.Store(int64(time.Hour))
	wait := func() bool {
		var w spinning
		w.goesOn(&s)
		w.learn(&s)
		return w.spins
	}
	for i := 0; i < enoughScore; i++ {
		if wait() {
			t.Fatalf("spins after %d quick answers", i)
		}
	}
	for i := 0; i < 300; i++ {
		if !wait() {
			t.Fatal("does not spin")
		}
	}
	for _, penalty := range []int32{8, 16, 32} {
		for !wait() {
		}
		s.penalty.Store(penalty - firstPenalty)
		var w spinning
		w.goesOn(&s)
		s.limit.Store(1)
		if w.goesOn(&s) || s.score.Load() != -penalty || s.penalty.Load() != 2*penalty-firstPenalty {
			t.Fatalf("score %d, penalty %d", s.score.Load(), s.penalty.Load()+firstPenalty)
		}
		s.limit.Store(int64(time.Hour))
		asleep := int32(0)
		for !wait() {
			asleep++
		}
		if asleep != penalty+enoughScore {
			t.Fatalf("slept %d times after a penalty of %d", asleep, penalty)
		}
	}
	s.limit.Store(0)
	if wait() {
		t.Error("spins although it is turned off")
	}
	tx, rx := pair[int](t, Options{Spin: -1})
	if tx.end.spin.limit.Load() != 0 || rx.end.spin.limit.Load() != 0 {
		t.Error("the option is not heeded")
	}
}

func decodeText(text []byte, value any) *problem {
	d := decoder{scanner: scanner{text: text}}
	return d.message(reflect.ValueOf(value).Elem())
}

func TestAnErrorDoesNotCopyTheNamesOfAMessage(t *testing.T) {
	// 127 levels whose keys are 60 MB together, and nothing at the end of it.
	key := `{"` + strings.Repeat("k", 500_000) + `":`
	text := []byte(strings.Repeat(key, 120) + "x")
	type nested struct {
		Next any `json:"next"`
	}
	for _, decode := range []func() *problem{
		func() *problem { var v any; return decodeText(text, &v) },
		func() *problem { var v map[string]map[string]any; return decodeText(text, &v) },
		func() *problem { var v nested; return decodeText(text, &v) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p := decode()
		if p == nil || len(p.text()) > 1100 || !strings.Contains(p.path, "...") {
			t.Errorf("found %v", p)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 4*uint64(len(text)) {
			t.Errorf("allocated %d MB for %d MB", grown>>20, len(text)>>20)
		}
	}
}
