package cuda

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
)

// TestTransfers: copies of many sizes, more than the ring holds at once, arrive whole; what is
// read later is what was there when it was asked for.
func TestTransfers(t *testing.T) {
	d := open(t, Options{})
	defer d.Close()
	r := rand.New(rand.NewPCG(1, 2))
	const size = 9 << 20
	x, b, err := tensor.New(d, tensor.U8, size)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	want := make([]byte, size)
	write := func(at, n int) {
		for i := range n {
			want[at+i] = byte(r.Uint32())
		}
		d.Write(x.Slice(at, n), want[at:at+n])
	}
	for range 3 * mostPieces {
		n := 1 + r.IntN(300)
		write(r.IntN(size-n), n)
	}
	for range 6 {
		n := 1 + r.IntN(2*pieceBytes)
		write(r.IntN(size-n), n)
	}
	got := make([]byte, size)
	if d.Read(got, x); !bytes.Equal(got, want) {
		t.Fatal("what was read is not what was written")
	}
	type asked struct {
		p    tensor.Pending
		want []byte
	}
	var pending []asked
	for i := range 2 * laterSlots {
		at, n := r.IntN(1000), 1+r.IntN(30000)
		switch i {
		case 5:
			n = 3 * laterBytes
		case 6:
			n = laterBytes
		case 7:
			n = 0
		}
		pending = append(pending, asked{d.ReadLater(x.Slice(at, n)), bytes.Clone(want[at : at+n])})
		write(r.IntN(1000), 200)
		if i%3 == 0 {
			a := pending[0]
			pending = pending[1:]
			if got, err := a.p.Wait(); err != nil || !bytes.Equal(got, a.want) {
				t.Fatalf("read later, %d: other bytes (%v)", i, err)
			}
		}
	}
	for _, a := range pending {
		if got, err := a.p.Wait(); err != nil || !bytes.Equal(got, a.want) {
			t.Fatalf("read later: other bytes (%v)", err)
		}
	}
	if n := len(d.transfer.later); n != d.transfer.slots || n == 0 {
		t.Errorf("%d of %d slots are free again", n, d.transfer.slots)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}
