package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
)

// counting prints numbers from the place on where the client was, and each of them
// carries its place. From the n-th on it waits.
func counting(n int, ready func()) func(context.Context, LogsRequest, func(LogLine) error) error {
	return func(ctx context.Context, req LogsRequest, emit func(LogLine) error) error {
		i := 0
		if _, err := fmt.Sscan(req.From["a"], &i); err != nil && req.From["a"] != "" {
			return err
		}
		for ; i < n; i++ {
			if err := emit(LogLine{Instance: "a", Line: fmt.Sprint(i), Place: fmt.Sprint(i + 1)}); err != nil {
				return err
			}
		}
		if err := emit(LogLine{Instance: "a", Begin: true, Place: fmt.Sprint(n)}); err != nil {
			return err
		}
		ready()
		<-ctx.Done()
		return ctx.Err()
	}
}

// serving serves svc at path until the returned function ends it for a reason.
func serving(t *testing.T, path string, svc Service) (stop func(why error)) {
	t.Helper()
	ln, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, svc, ServerOptions{Log: slog.New(slog.DiscardHandler)}) }() // ends with ctx
	return func(why error) {
		cancel(why)
		if err := received(t, "the server's end", ended); err != nil {
			t.Error(err)
		}
	}
}

// Whoever follows logs goes on with the next server, after the last line that came;
// when the last one ends in order, so does following.
func TestFollowingGoesOnWithTheNextServer(t *testing.T) {
	path := socketPath(t)
	client := dialled(t, path)
	client.FirstPatience, client.Patience = patience, patience
	var got []string
	done, lines := make(chan error, 1), make(chan struct{}, 100)
	follow := func() {
		done <- client.Logs(bounded(t), LogsRequest{Selectors: []string{"a"}, Follow: true}, func(l LogLine) error {
			if l.Place != "" || l.Begin {
				return errors.New("places are not for the caller")
			}
			got = append(got, l.Line)
			lines <- struct{}{}
			return nil
		})
	}
	for n := 1; n <= 4; n++ {
		ready := make(chan struct{}, 1)
		stop := serving(t, path, &fake{logs: counting(3*n, func() { signal(ready) })})
		if n == 1 {
			go follow() // ends with the last server
		}
		received(t, "the server's turn", ready)
		for range 3 {
			received(t, "a line", lines)
		}
		if n < 4 {
			stop(ErrReplaced)
		} else {
			stop(nil)
		}
	}
	if err := received(t, "the end of following", done); err != nil {
		t.Error(err)
	}
	var want []string
	for i := range 12 {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
