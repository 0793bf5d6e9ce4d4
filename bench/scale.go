package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const programsOfScale = 10000

// measureTenThousand looks at what ten thousand programs cost: floor and pm only,
// since the others take minutes, or cannot.
func measureTenThousand(ctx context.Context, b *bench) error {
	for _, sup := range []*supervisor{b.floor, b.pm} {
		b.say("10,000 programs: %s", sup.name)
		err := b.with(ctx, sup, load{programsOfScale, plain}, func(s *session, start time.Duration) error {
			b.add(rowStart10000, sup, ms(start))
			if sup == b.pm {
				if err := s.scale(ctx); err != nil {
					return err
				}
			}
			if err := s.replace(ctx, rowReplace10000); err != nil {
				return err
			}
			took, err := s.stop(ctx)
			if err != nil {
				return err
			}
			b.add(rowStop10000, sup, ms(took))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scale measures what only pm does.
func (s *session) scale(ctx context.Context) error {
	s.client.CloseIdleConnections()
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	u, err := s.usage()
	if err != nil {
		return err
	}
	s.bench.add(rowPSS10000, s.sup, float64(u.pss)/1024/programsOfScale)
	s.bench.add(rowThreads10000, s.sup, float64(u.threads))
	for range 5 {
		begin := now()
		if _, err := s.get(ctx, "status"); err != nil {
			return s.failure("cannot tell its status: " + err.Error())
		}
		s.bench.add(rowStatus10000, s.sup, ms(time.Duration(now()-begin)))
	}
	return s.reload(ctx)
}

// reload adds a program to the file, and then changes that again and again.
func (s *session) reload(ctx context.Context) error {
	path := filepath.Join(s.dir, "pm.toml")
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for n := range 6 {
		one := fmt.Sprintf("\n[programs.one]\ncmd = [%q, %q]\nenv = { N = \"%d\" }\nstarttime = 0\n", s.bench.idle, s.socket, n)
		if err := os.WriteFile(path, append(file, one...), 0o600); err != nil {
			return err
		}
		begin := now()
		if err := s.post(ctx, "reload", "{}", nil); err != nil {
			return s.failure("cannot reload: " + err.Error())
		}
		took := time.Duration(now() - begin)
		if _, err := s.next(ctx); err != nil {
			return err
		}
		if n > 0 { // the first adds it
			s.bench.add(rowReload10000, s.sup, ms(took))
		}
	}
	return nil
}
