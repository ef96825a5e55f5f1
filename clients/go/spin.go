//go:build linux

package wormhole

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// Spinning: looking again and again before going to sleep, as long as that has been paying off. To be woken takes
// longer than most answers do. But what comes now and then would only burn the processor, and where other processes
// want it, a call that yields it may be without it for milliseconds. So each time that spinning was in vain, or too slow,
// it takes twice as many quick answers until it is tried again. The numbers are those of the Rust crate.

// DefaultSpin is how long a call that waits spins before it sleeps, unless its channel was made with another time.
const DefaultSpin = 50 * time.Microsecond

const (
	// At this score a wait spins.
	enoughScore  = 4
	mostScore    = 8
	firstPenalty = 8
	lastPenalty  = 4096
)

// spin is what one end has learned about its waits. These are mere estimates: several goroutines may overwrite each
// other's.
type spin struct {
	// Nanoseconds; zero means never.
	limit atomic.Int64
	// How many quick answers there have been lately, less those that it takes to try again.
	score atomic.Int32
	// How many more than firstPenalty it takes after the next failure.
	penalty atomic.Int32
}

func (s *spin) paysOff() bool {
	return s.score.Load() >= enoughScore && s.limit.Load() > 0
}

func (s *spin) succeeded(hasSpun bool) {
	if score := s.score.Load(); score < mostScore {
		s.score.Store(score + 1)
	}
	if penalty := s.penalty.Load(); hasSpun && penalty > 0 {
		s.penalty.Store(penalty - 1)
	}
}

func (s *spin) failed() {
	penalty := s.penalty.Load() + firstPenalty
	s.score.Store(-penalty)
	if penalty *= 2; penalty > lastPenalty {
		penalty = lastPenalty
	}
	s.penalty.Store(penalty - firstPenalty)
}

func (s *spin) wasSlow() {
	if score := s.score.Load(); score > 0 {
		s.score.Store(score - 1)
	}
}

// spinning is one wait, from the first look that was in vain. Zero before that.
type spinning struct {
	since time.Time
	spins bool
}

// goesOn tells whether to look once more at once, and lets others have the processor first.
func (s *spinning) goesOn(end *spin) bool {
	if s.since.IsZero() {
		s.since = time.Now()
		s.spins = end.paysOff()
	} else if s.spins && time.Since(s.since) >= time.Duration(end.limit.Load()) {
		s.spins = false
		end.failed()
	}
	if s.spins {
		runtime.Gosched() // to goroutines
		_, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return s.spins
}

// learn notes that what was waited for has come.
func (s *spinning) learn(end *spin) {
	if s.since.IsZero() {
		return // at once
	}
	// After a sleep the time that waking up takes is in it, about as long again.
	quick := time.Since(s.since) <= 2*time.Duration(end.limit.Load())
	switch {
	case quick:
		end.succeeded(s.spins)
	case s.spins:
		end.failed()
	default:
		end.wasSlow()
	}
}
