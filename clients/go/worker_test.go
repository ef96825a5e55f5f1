//go:build linux

package wormhole

import (
	"errors"
	"os"
	"strings"
	"testing"
)

type task struct {
	Do   string   `json:"do"`
	File *os.File `json:"file,omitempty"`
}

func TestAWorkerAnswersEachJobAndOutlivesItsFailures(t *testing.T) {
	noLeak(t)
	jobs, source := pair[any](t, Options{})
	results, outcome := pair[jobResult[map[string]any]](t, Options{})
	var args workerArgs[task, map[string]any]
	args.Jobs = &Receiver[task]{source.end}
	args.Results = results
	ended := make(chan error)
	go func() {
		ended <- workOn(args, func(job task) (map[string]any, error) {
			switch job.Do {
			case "fail":
				return nil, errors.New("it failed \xff")
			case "panic":
				panic("out of " + job.Do)
			case "index":
				_ = []int{}[len(job.Do)]
			case "unwritable":
				return map[string]any{"channel": make(chan int)}, nil
			}
			return map[string]any{"file": job.File}, nil
		})
	}()
	file := memfd(t, "text", 0)
	for _, do := range []any{
		task{Do: "fail"}, task{Do: "panic"}, task{Do: "index"}, task{Do: "unwritable"}, 5, task{"file", file},
	} {
		check(t, jobs.Send(within(t), do))
	}
	jobs.Close()
	file.Close()
	check(t, <-ended)
	failures := []struct{ message, place string }{
		{"it failed \ufffd", ""},
		{"out of panic", "worker_test.go:"},
		{"runtime error: index out of range [5] with length 0", "worker_test.go:"},
		{"wormhole: cannot encode a message of type", ""},
		{"wormhole: cannot decode a message as wormhole.task: found '5', expected an object", ""},
	}
	for _, expected := range failures {
		result := must[jobResult[map[string]any]](t)(outcome.Recv(within(t)))
		if result.Err == nil || !strings.HasPrefix(result.Err.Message, expected.message) {
			t.Fatalf("found %+v, expected %s", result.Err, expected.message)
		}
		if found := result.Err.Place; (found != nil) != (expected.place != "") ||
			found != nil && !strings.Contains(*found, expected.place) {
			t.Errorf("%s: found the place %v", expected.message, found)
		}
		if (result.Err.Place != nil) != (result.Err.Backtrace != nil) ||
			result.Err.Backtrace != nil && !strings.Contains(*result.Err.Backtrace, "TestAWorker") {
			t.Errorf("found the stack %v", result.Err.Backtrace)
		}
	}
	// The file is an index in the text, and beside it.
	last, beside, err := outcome.RecvWithFds(within(t))
	check(t, err)
	if last.Ok == nil || len(beside) != 1 || content(t, beside[0]) != "text" {
		t.Errorf("found %+v and %d files", last, len(beside))
	}
	closeFiles(beside)
	source.Close()
	results.Close()
	outcome.Close()
}

type panicsWhenWritten struct{ Why any }

func (p panicsWhenWritten) MarshalJSON() ([]byte, error) {
	if p.Why == "" {
		return []byte("5"), nil
	}
	panic(p.Why)
}

func TestAWorkerOutlivesMethodsThatPanic(t *testing.T) {
	noLeak(t)
	type job struct {
		Why   string
		File  *os.File `json:",omitempty"`
		Panic *panics  `json:",omitempty"`
	}
	type outcome struct {
		File    *os.File `json:",omitempty"`
		Written panicsWhenWritten
	}
	type outcomeRead struct{ Written int }
	jobs, source := pair[any](t, Options{})
	results, rx := pair[jobResult[outcome]](t, Options{})
	answers := &Receiver[jobResult[outcomeRead]]{rx.end}
	ended := make(chan error)
	go func() {
		args := workerArgs[job, outcome]{Jobs: &Receiver[job]{source.end}, Results: results}
		ended <- workOn(args, func(j job) (outcome, error) {
			why := panicsWhenWritten{j.Why}
			if j.Why == "nil" {
				why.Why = nil
			}
			return outcome{j.File, why}, nil
		})
	}()
	file := memfd(t, "", 0)
	for _, value := range []any{
		map[string]any{"Why": "", "File": file, "Panic": 1}, job{Why: "no result", File: file}, job{Why: "nil"}, job{},
	} {
		check(t, jobs.Send(within(t), value))
	}
	jobs.Close()
	file.Close()
	check(t, <-ended)
	for _, expected := range []struct{ message, method string }{
		{"on purpose", "UnmarshalJSON"}, {"no result", "MarshalJSON"}, {"", "MarshalJSON"},
	} {
		result := must[jobResult[outcomeRead]](t)(answers.Recv(within(t)))
		if result.Err == nil || !strings.Contains(result.Err.Message, expected.message) {
			t.Fatalf("found %+v, expected %s", result.Err, expected.message)
		}
		if result.Err.Place == nil || !strings.Contains(*result.Err.Place, "_test.go:") ||
			result.Err.Backtrace == nil || !strings.Contains(*result.Err.Backtrace, expected.method) {
			t.Errorf("%s: found %v, %v", expected.message, result.Err.Place, result.Err.Backtrace)
		}
	}
	if last := must[jobResult[outcomeRead]](t)(answers.Recv(within(t))); last.Ok == nil || last.Ok.Written != 5 {
		t.Errorf("found %+v", last)
	}
	_, err := answers.TryRecv()
	expect(t, err, ErrEmpty)
	source.Close()
	results.Close()
	rx.Close()
}

// failsToBeRead is read with an error of this package.
type failsToBeRead struct{}

func (*failsToBeRead) UnmarshalJSON(text []byte) error {
	return map[string]error{"0": ErrDisconnected, "1": ErrClosed, "2": &IOError{"read", os.ErrInvalid}}[string(text)]
}

func TestAWorkerGoesOnAfterAJobThatIsLostWhateverTheCause(t *testing.T) {
	noLeak(t)
	jobs, source := pair[int](t, Options{})
	results, outcome := pair[jobResult[int]](t, Options{})
	for i := 0; i <= 3; i++ {
		check(t, jobs.Send(within(t), i))
	}
	jobs.Close()
	args := workerArgs[failsToBeRead, int]{Jobs: &Receiver[failsToBeRead]{source.end}, Results: results}
	check(t, workOn(args, func(failsToBeRead) (int, error) { return 5, nil }))
	for i := 0; i <= 3; i++ {
		if result := must[jobResult[int]](t)(outcome.TryRecv()); (result.Err == nil) != (i == 3) {
			t.Errorf("job %d: found %+v", i, result)
		}
	}
	source.Close()
	results.Close()
	outcome.Close()
}

func TestAWorkerWhosePoolIsGoneEnds(t *testing.T) {
	noLeak(t)
	jobs, source := pair[int](t, Options{})
	results, outcome := pair[jobResult[int]](t, Options{})
	check(t, jobs.Send(within(t), 1))
	check(t, outcome.Close())
	double := func(job int) (int, error) { return 2 * job, nil }
	check(t, workOn(workerArgs[int, int]{Jobs: source, Results: results}, double))
	check(t, source.Close())
	expect(t, workOn(workerArgs[int, int]{Jobs: source, Results: results}, double), ErrClosed)
	results.Close()
	jobs.Close()
	err := Work(double)
	var not *NotInheritedError
	if !errors.As(err, &not) {
		t.Errorf("found %v", err)
	}
}
