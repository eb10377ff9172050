package cuda

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"ringtail/atomicfile"
	"ringtail/tensor"
	"ringtail/tensor/cuda/kernels"
)

// modules are a device's kernels. A family of kernels is a module; the driver compiles
// its PTX when the family is first needed, and what came out is kept in the user's
// cache. (CUDA Driver API, Module Management; a "cubin" is machine code for one GPU.)
type modules struct {
	functions map[string]*function // by "FAMILY.NAME"

	mu       sync.Mutex // of families, for preload's sake
	families map[string]*module
	loading  sync.WaitGroup // preload's
}

type module struct {
	once   sync.Once
	handle uintptr
	err    error
}

// function is a kernel, and the most dynamic shared memory that it may be launched with.
type function struct {
	handle uintptr
	shared int
}

// close unloads everything.
func (m *modules) close() {
	m.loading.Wait()
	for _, f := range m.families {
		if f.handle != 0 {
			call(cu.moduleUnload, f.handle)
		}
	}
	m.families, m.functions = nil, nil
}

// smallest is the family that takes the least to load.
const smallest = "ragged"

// Preload begins to load the kernels of a training step, those that take longest first,
// so that they are there by the time that weights and data are.
func (d *Device) Preload() {
	if d.emulated() {
		return
	}
	var families []string
	switch {
	case d.opt.Float == tensor.F32:
		families = append(families, "attention_f32")
	case d.dnn.handle == 0 || !d.opt.Fast: // deterministic gradients of packed rows aren't cuDNN's
		families = append(families, "attention")
	}
	if d.blas.handle == 0 {
		families = append(families, "gemm")
	}
	d.preload(append(families, "norm", "loss", "elementwise", "optimizer", "embedding", "rope")...)
}

// preload begins to load families, each on a thread of its own, and doesn't wait for
// them: a launch waits for its family. A family that fails tells so at each launch.
func (d *Device) preload(families ...string) {
	for _, family := range families {
		d.modules.loading.Go(func() {
			d.enter()
			defer d.leave()
			d.module(family)
		})
	}
}

// function is the kernel "FAMILY.NAME", ready to be launched with so many bytes of
// dynamic shared memory.
func (d *Device) function(name string, shared int) (uintptr, error) {
	f := d.modules.functions[name]
	if f == nil {
		family, entry, _ := strings.Cut(name, ".")
		module, err := d.module(family)
		if err != nil {
			return 0, err
		}
		if d.emulated() {
			entry = name // its modules hold all families
		}
		f = &function{}
		if err := check("cuModuleGetFunction", call(cu.moduleGetFunction, address(&f.handle), module, address(cString(entry))), "no kernel %s", name); err != nil {
			return 0, err
		}
		if d.modules.functions == nil {
			d.modules.functions = map[string]*function{}
		}
		d.modules.functions[name] = f
	}
	// A block gets more than 48 KiB, what is static counted, only if that was asked for.
	if shared > f.shared {
		const maxDynamicSharedSizeBytes = 8
		if err := check("cuFuncSetAttribute", call(cu.funcSetAttribute, f.handle, maxDynamicSharedSizeBytes, uintptr(shared)),
			"kernel %s with %d bytes of dynamic shared memory; a block of this GPU has at most %d", name, shared, d.gpu.SharedMemory); err != nil {
			return 0, err
		}
		f.shared = shared
	}
	return f.handle, nil
}

// module is a family's, loaded at the first call. The context must be current.
func (d *Device) module(family string) (uintptr, error) {
	d.modules.mu.Lock()
	m := d.modules.families[family]
	if m == nil {
		if d.modules.families == nil {
			d.modules.families = map[string]*module{}
		}
		m = &module{}
		d.modules.families[family] = m
	}
	d.modules.mu.Unlock()
	m.once.Do(func() { m.handle, m.err = d.load(family) })
	return m.handle, m.err
}

// emulated tells whether the driver is the one of this repository's tests, which has the
// kernels in it.
func (d *Device) emulated() bool { return strings.Contains(d.gpu.Name, "emulator") }

func (d *Device) load(family string) (uintptr, error) {
	if d.emulated() {
		return loadImage([]byte(family))
	}
	arch, err := architecture(d.gpu, os.Getenv("RINGTAIL_CUDA_ARCH"))
	if err != nil {
		return 0, err
	}
	sum, ok := kernels.Sums()[family+"."+arch]
	if !ok {
		_, err := kernels.PTX(family, arch)
		return 0, err
	}
	cache := cubins()
	name := fmt.Sprintf("%s-sm%d-cuda%d-%.32s.cubin", family, d.gpu.Capability, cu.version, sum.PTX)
	if cubin := cache.get(name); cubin != nil {
		if handle, err := loadImage(cubin); err == nil {
			return handle, nil
		}
		// Whatever is wrong with it, the PTX is there.
	}
	ptx, err := kernels.PTX(family, arch)
	if err != nil {
		return 0, err
	}
	cubin, err := link(family, ptx)
	if err != nil {
		return 0, fmt.Errorf("kernels %s of compute_%s on %s: %w", family, arch, d.gpu.Name, err)
	}
	handle, err := loadImage(cubin)
	if err != nil {
		return 0, fmt.Errorf("kernels %s of compute_%s on %s: %w", family, arch, d.gpu.Name, err)
	}
	cache.put(name, cubin)
	return handle, nil
}

// architecture is the one whose PTX a GPU takes: Hopper's is for compute capability 9.0
// alone, "a" standing for what no other architecture is bound to have.
func architecture(gpu Info, forced string) (string, error) {
	capability := fmt.Sprintf("%d.%d", gpu.Capability/10, gpu.Capability%10)
	switch {
	case gpu.Capability < 80:
		return "", fmt.Errorf("the kernels need a GPU of compute capability 8.0 or more (Ampere, 2020); %s has %s", gpu.Name, capability)
	case forced == "" && gpu.Capability == 90:
		return kernels.Hopper, nil
	case forced == "" || forced == kernels.Portable:
		return kernels.Portable, nil
	case forced == kernels.Hopper && gpu.Capability == 90:
		return kernels.Hopper, nil
	case forced == kernels.Hopper:
		return "", fmt.Errorf("RINGTAIL_CUDA_ARCH=%s: these kernels run on compute capability 9.0 alone; %s has %s", forced, gpu.Name, capability)
	}
	return "", fmt.Errorf("RINGTAIL_CUDA_ARCH=%s: unknown; %s (portable) and %s (compute capability 9.0) exist", forced, kernels.Portable, kernels.Hopper)
}

// loadImage loads machine code into the current context.
func loadImage(image []byte) (handle uintptr, err error) {
	image = append(image, 0) // cuModuleLoadData finds the end by itself
	err = check("cuModuleLoadData", call(cu.moduleLoadData, address(&handle), address(&image[0])))
	return handle, err
}

// Options of the driver's compiler and kinds of its input (CUjit_option, CUjitInputType).
const (
	jitInfoLog      = 3
	jitInfoLogSize  = 4
	jitErrorLog     = 5
	jitErrorLogSize = 6

	jitInputPTX = 1
)

// errUnsupportedPTXVersion says that the PTX is newer than the driver.
const errUnsupportedPTXVersion = 222

// link compiles a family's PTX for the current context's GPU.
func link(family string, ptx []byte) ([]byte, error) {
	const logSize = 8 << 10
	info, failure := make([]byte, logSize), make([]byte, logSize)
	keys := []int32{jitInfoLog, jitInfoLogSize, jitErrorLog, jitErrorLogSize}
	values := []uintptr{0, logSize, 0, logSize} // the sizes come back as what was written
	// The driver keeps these addresses from one call to the next.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info[0])
	pin.Pin(&failure[0])
	pin.Pin(&keys[0])
	pin.Pin(&values[0])
	values[0], values[2] = uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&failure[0]))

	var state uintptr
	if err := check("cuLinkCreate", call(cu.linkCreate, uintptr(len(keys)), address(&keys[0]), address(&values[0]), address(&state))); err != nil {
		return nil, err
	}
	defer func() { call(cu.linkDestroy, state) }()
	explain := func(err error) error {
		var e *Error
		if !errors.As(err, &e) {
			return err
		}
		if e.Code == errUnsupportedPTXVersion {
			e.Detail += "; " + updateDriver
		}
		for _, log := range [][]byte{failure, info} {
			text, _, _ := bytes.Cut(log, []byte{0})
			if text := strings.Join(strings.Fields(string(text)), " "); text != "" {
				e.Detail += "; the compiler says: " + text
			}
		}
		return err
	}
	ptx = append(ptx, 0)
	name := cString(family + ".ptx")
	if err := check("cuLinkAddData", call(cu.linkAddData, state, jitInputPTX, address(&ptx[0]), uintptr(len(ptx)), address(name), 0, 0, 0)); err != nil {
		return nil, explain(err)
	}
	var cubin, size uintptr
	if err := check("cuLinkComplete", call(cu.linkComplete, state, address(&cubin), address(&size))); err != nil {
		return nil, explain(err)
	}
	// The state owns it.
	return bytes.Clone(unsafe.Slice(*(**byte)(unsafe.Pointer(&cubin)), size)), nil
}

// cubinCache keeps what the driver has compiled, a file each: its SHA-256, then its
// bytes. An empty name is no cache: each process compiles for itself.
type cubinCache string

// cubins is the user's cache; none where the system names no folder for it.
func cubins() cubinCache {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return cubinCache(filepath.Join(dir, "ringtail", "cubin"))
}

// get is nil for what is absent or damaged.
func (c cubinCache) get(name string) []byte {
	if c == "" {
		return nil
	}
	file, err := os.ReadFile(filepath.Join(string(c), name))
	if err != nil || len(file) <= sha256.Size {
		return nil
	}
	sum, cubin := file[:sha256.Size], file[sha256.Size:]
	if sha256.Sum256(cubin) != [sha256.Size]byte(sum) {
		return nil
	}
	return cubin
}

// put stores if it can: a folder that can't be written to is no error.
func (c cubinCache) put(name string, cubin []byte) {
	if c == "" || os.MkdirAll(string(c), 0o755) != nil {
		return
	}
	sum := sha256.Sum256(cubin)
	_ = atomicfile.WriteBytes(filepath.Join(string(c), name), 0o644, append(sum[:], cubin...))
}
