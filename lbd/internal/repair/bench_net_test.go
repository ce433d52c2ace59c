package repair

import (
	"errors"
	"testing"
)

// BenchmarkNetFreezeRestore moves one idle connection again and again: freeze, encode, close, decode, restore, thaw, on one core.
func BenchmarkNetFreezeRestore(b *testing.B) {
	for _, c := range []struct{ name, vip, listen string }{{"IPv4", vip4, vip4}, {"IPv6", vip6, vip6}} {
		b.Run(c.name, func(b *testing.B) {
			w := newNetwork(b, c.vip, c.listen)
			_, s := w.connect()
			fd := descriptor(b, s)
			s.Close()
			var buf []byte
			err := w.servers[0].Do(func() (err error) {
				for b.Loop() {
					if fd, buf, err = around(fd, buf[:0]); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "connections/s")
			b.ReportMetric(float64(len(buf)), "bytes/state")
			connection(b, fd)
		})
	}
}

func around(fd int, buf []byte) (int, []byte, error) {
	z, err := Freeze(fd)
	if err != nil {
		return fd, buf, err
	}
	buf = z.State.Append(buf)
	if err := z.Close(); err != nil {
		return fd, buf, err
	}
	s, err := Decode(buf)
	if err != nil {
		return fd, buf, err
	}
	r, err := Restore(s)
	if err != nil {
		return fd, buf, err
	}
	if err := r.Thaw(); err != nil {
		return fd, buf, errors.Join(err, r.Close())
	}
	return r.FD(), buf, nil
}
