package runs

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// clocked is a Progress whose time the test moves.
func clocked(mode ProgressMode, total int) (*Progress, *bytes.Buffer, *time.Time) {
	var out bytes.Buffer
	now := time.Unix(1e9, 0)
	p := NewProgress(&out, mode, total)
	p.now = func() time.Time { return now }
	return p, &out, &now
}

func TestProgressPlain(t *testing.T) {
	p, out, now := clocked(ProgressAuto, 100) // a buffer is no terminal
	for i := 1; i <= 100; i++ {
		v := map[string]float64{"loss": 2, "lr": 2e-5, "tok_per_s": 12345}
		if i == 50 {
			v["eval/loss"] = 1.5
		}
		p.Step(i, v)
		*now = now.Add(time.Second / 2)
	}
	p.Message("saved %s", "model")
	p.Close()
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	want := []string{
		"step 1/100  loss 2.0000  lr 2e-05  12.3k tok/s",
		"step 21/100  loss 2.0000  lr 2e-05  12.3k tok/s  40s left",
		"step 41/100  loss 2.0000  lr 2e-05  12.3k tok/s  30s left",
		"step 50/100  loss 2.0000  eval 1.5000  lr 2e-05  12.3k tok/s  25s left",
		"step 70/100  loss 2.0000  lr 2e-05  12.3k tok/s  15s left",
		"step 90/100  loss 2.0000  lr 2e-05  12.3k tok/s  5s left",
		"step 100/100  loss 2.0000  lr 2e-05  12.3k tok/s",
		"saved model",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestProgressAfterResume(t *testing.T) {
	p, out, now := clocked(ProgressPlain, 1000)
	p.Step(900, nil)
	*now = now.Add(10 * time.Second)
	p.Step(910, nil) // this session's speed counts, not the 900 steps before
	if !strings.Contains(out.String(), "step 910/1000  1m30s left\n") {
		t.Errorf("got %q", out.String())
	}
}

func TestProgressQuietAndJSON(t *testing.T) {
	p, out, _ := clocked(ProgressQuiet, 10)
	p.Step(1, map[string]float64{"loss": 1})
	p.Message("x")
	p.Close()
	if out.Len() > 0 {
		t.Errorf("quiet printed %q", out.String())
	}
	p, out, _ = clocked(ProgressJSON, 10)
	p.Step(1, map[string]float64{"loss": 1})
	p.Message("a \"b\"\n")
	p.Step(2, map[string]float64{"loss": 0.5})
	p.Close()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 || lines[0] != `{"step":1,"loss":1}` {
		t.Errorf("got %q", lines)
	}
	for _, line := range lines {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestProgressLive(t *testing.T) {
	p, out, now := clocked(ProgressPlain, 200)
	p.mode, p.live = ProgressAuto, true
	columns := 120
	p.width = func() int { return columns }
	v := map[string]float64{"loss": 2.34567, "lr": 1e-4, "tok_per_s": 999.7}
	p.Step(1, v)
	*now = now.Add(50 * time.Millisecond)
	p.Step(2, v) // too soon
	*now = now.Add(950 * time.Millisecond)
	p.Step(50, v)
	p.Message("saved")
	columns = 30
	*now = now.Add(time.Second)
	p.Step(100, v)
	columns = 3
	*now = now.Add(time.Second)
	p.Step(150, v)
	p.Close()
	p.Close()
	live := "step 50/200  \u2501\u2501\u2501\u2501\u2501" + strings.Repeat("\u2500", 15) + "  25%  loss 2.3457  lr 0.0001  1k tok/s  3s left"
	want := "\rstep 1/200  " + strings.Repeat("\u2500", 20) + "   0%  loss 2.3457  lr 0.0001  1k tok/s\x1b[K" +
		"\r" + live + "\x1b[K" +
		"\r\x1b[Ksaved\n" + live +
		"\rstep 100/200  loss 2.3457\x1b[K" +
		"\rst\x1b[K\n"
	if got := out.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestShortForms(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 2e-5: "2e-05", 0.25: "0.25", 999: "999", 999.6: "1k", 12345: "12.3k", 1.5e6: "1.5M", 7e9: "7B", 2e12: "2T", -12345: "-12.3k"} {
		if got := shortNumber(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 59400 * time.Millisecond: "59s", 59600 * time.Millisecond: "1m00s", 3 * time.Hour: "3h00m", 49 * time.Hour: "2d01h"} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
