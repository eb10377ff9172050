//go:build linux && !nocuda

package bench

import (
	"encoding/json"
	"errors"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cuda"
	"ringtail/tensor/cuda/emulator/build"
)

// TestGPUGEMM runs the benchmark on the emulator, whose rates mean nothing.
func TestGPUGEMM(t *testing.T) {
	library, err := build.Library()
	if errors.Is(err, build.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("RINGTAIL_LIBCUDA", library)
	t.Setenv("RINGTAIL_LIBCUBLASLT", library)
	t.Setenv("RINGTAIL_LIBCUDNN", "off")
	dev, err := cuda.Open(cuda.Options{Float: tensor.BF16})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	list, err := GPUGEMM(dev, "bf16", 48, 16, 32, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"gemm_48x16x32", "gemm_48x16x32_dx", "gemm_48x16x32_dw"}
	shapes := [][3]float64{{48, 16, 32}, {48, 32, 16}, {16, 32, 48}}
	for i, r := range list {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{want[i] + "_tflops", want[i] + "_sustained_tflops"} {
			if _, ok := got[key]; !ok {
				t.Errorf("%s lacks %s", text, key)
			}
		}
		if got := [3]float64{got["m"].(float64), got["n"].(float64), got["k"].(float64)}; got != shapes[i] {
			t.Errorf("product %d is of %v, expected %v", i, got, shapes[i])
		}
	}
	if len(list) != 3 {
		t.Errorf("%d products", len(list))
	}
	if list, err = GPUGEMM(dev, "fp8", 48, 16, 32, 0.01); err != nil || len(list) != 3 || list[2].Dtype != "fp8" {
		t.Errorf("%d products of fp8: %v", len(list), err)
	}
	if _, err := GPUGEMM(dev, "fp8", 1<<20, 1<<20, 1<<20, 0); err == nil {
		t.Error("products of 12 TiB fit")
	}
	if _, err := GPUGEMM(dev, "bf16", 1<<20, 1<<20, 1<<20, 0); err == nil {
		t.Error("products of 12 TiB fit")
	}
}
