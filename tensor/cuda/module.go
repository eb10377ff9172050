package cuda

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"ringtail/atomicfile"
	"ringtail/tensor/cuda/kernels"
)

// modules are a device's kernels. Each kernel is a module of its own, cut out of its
// family's PTX: the driver compiles it when it is first needed, which takes a tenth of a
// second where a whole family would take seconds, and what came out is kept in the user's
// cache. (CUDA Driver API, Module Management; a "cubin" is machine code for one GPU.)
type modules struct {
	functions map[string]*function // by "FAMILY.NAME"

	mu      sync.Mutex // of what follows, for preload's sake
	loaded  map[string]*module
	sources map[string]func() (map[string][]byte, error) // by family: the PTX of its kernels
	loading sync.WaitGroup                               // preload's
	closing bool
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
	m.quiesce()
	for _, f := range m.loaded {
		if f.handle != 0 {
			call(cu.moduleUnload, f.handle)
		}
	}
	m.loaded, m.functions, m.sources = nil, nil, nil
}

// quiesce ends preloading.
func (m *modules) quiesce() {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	m.loading.Wait()
}

// smallest is the kernel that takes the least to load.
const smallest = "ragged.offsets"

// Preload begins to load the kernels of a training step, so that they are there by the
// time that weights and data are.
func (d *Device) Preload() {
	if !d.emulated() {
		d.preload(d.firstKernels()...)
	}
}

// preload begins to load kernels, in their order on a few threads, and doesn't wait for
// them: a launch waits for its own. One that fails tells so at each launch.
func (d *Device) preload(names ...string) {
	m := &d.modules
	next := make(chan string, len(names))
	for _, name := range names {
		next <- name
	}
	close(next)
	for range min(len(names), runtime.NumCPU(), 8) {
		m.loading.Go(func() {
			d.enter()
			defer d.leave()
			for name := range next {
				m.mu.Lock()
				closing := m.closing
				m.mu.Unlock()
				if closing {
					return
				}
				d.module(name)
			}
		})
	}
}

// function is the kernel "FAMILY.NAME", ready to be launched with so many bytes of
// dynamic shared memory.
func (d *Device) function(name string, shared int) (uintptr, error) {
	f := d.modules.functions[name]
	if f == nil {
		_, entry, _ := strings.Cut(name, ".")
		module, err := d.module(name)
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

// module is a kernel's, loaded at the first call. The context must be current.
func (d *Device) module(name string) (uintptr, error) {
	d.modules.mu.Lock()
	m := d.modules.loaded[name]
	if m == nil {
		if d.modules.loaded == nil {
			d.modules.loaded = map[string]*module{}
		}
		m = &module{}
		d.modules.loaded[name] = m
	}
	d.modules.mu.Unlock()
	m.once.Do(func() { m.handle, m.err = d.load(name) })
	return m.handle, m.err
}

// source is a kernel's PTX, that of its family unpacked and cut at the first call.
func (m *modules) source(family, arch, entry string) ([]byte, error) {
	m.mu.Lock()
	entries := m.sources[family]
	if entries == nil {
		if m.sources == nil {
			m.sources = map[string]func() (map[string][]byte, error){}
		}
		entries = sync.OnceValues(func() (map[string][]byte, error) {
			ptx, err := kernels.PTX(family, arch)
			if err != nil {
				return nil, err
			}
			return kernels.Split(ptx), nil
		})
		m.sources[family] = entries
	}
	m.mu.Unlock()
	all, err := entries()
	if err != nil {
		return nil, err
	}
	if all[entry] == nil {
		return nil, fmt.Errorf("no kernel %s.%s", family, entry)
	}
	return all[entry], nil
}

// emulated tells whether the driver is the one of this repository's tests, which has the
// kernels in it.
func (d *Device) emulated() bool { return strings.Contains(d.gpu.Name, "emulator") }

func (d *Device) load(kernel string) (uintptr, error) {
	if d.emulated() {
		return loadImage([]byte(kernel))
	}
	family, entry, _ := strings.Cut(kernel, ".")
	arch, err := architecture(d.gpu, os.Getenv("RINGTAIL_CUDA_ARCH"))
	if err != nil {
		return 0, err
	}
	if dir := os.Getenv("RINGTAIL_KERNELS"); dir != "" {
		if handle, found, err := d.loadFrom(dir, family, arch); found || err != nil {
			return handle, err
		}
	}
	sum, ok := kernels.Sums()[family+"."+arch]
	if !ok {
		_, err := kernels.PTX(family, arch)
		return 0, err
	}
	cache := cubins()
	name := fmt.Sprintf("%s-sm%d-cuda%d-%.32s.cubin", kernel, d.gpu.Capability, cu.version, sum.PTX)
	if cubin := cache.get(name); cubin != nil {
		if handle, err := loadImage(cubin); err == nil {
			return handle, nil
		}
		// Whatever is wrong with it, the PTX is there.
	}
	ptx, err := d.modules.source(family, arch, entry)
	if err != nil {
		return 0, err
	}
	cubin, err := link(kernel, ptx)
	if err != nil {
		return 0, fmt.Errorf("kernel %s of compute_%s on %s: %w", kernel, arch, d.gpu.Name, err)
	}
	handle, err := loadImage(cubin)
	if err != nil {
		return 0, fmt.Errorf("kernel %s of compute_%s on %s: %w", kernel, arch, d.gpu.Name, err)
	}
	cache.put(name, cubin)
	return handle, nil
}

// loadFrom loads a family's PTX from the file FAMILY.ARCHITECTURE.ptx of a folder instead of the program,
// if it is there. For development: kernels can be tried without another build of the program.
func (d *Device) loadFrom(dir, family, arch string) (handle uintptr, found bool, err error) {
	path := filepath.Join(dir, family+"."+arch+".ptx")
	ptx, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, true, fmt.Errorf("RINGTAIL_KERNELS: %w", err)
	}
	cache := cubins()
	name := fmt.Sprintf("%s-sm%d-cuda%d-%.16x.cubin", family, d.gpu.Capability, cu.version, sha256.Sum256(ptx))
	cubin := cache.get(name)
	if cubin == nil {
		if cubin, err = link(family, ptx); err != nil {
			return 0, true, fmt.Errorf("RINGTAIL_KERNELS: %s on %s: %w", path, d.gpu.Name, err)
		}
		cache.put(name, cubin)
	}
	if handle, err = loadImage(cubin); err != nil {
		return 0, true, fmt.Errorf("RINGTAIL_KERNELS: %s on %s: %w", path, d.gpu.Name, err)
	}
	return handle, true, nil
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

// link compiles PTX for the current context's GPU; name is for its compiler's messages.
func link(what string, ptx []byte) ([]byte, error) {
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
	ptx = append(slices.Clip(ptx), 0)
	name := cString(what + ".ptx")
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
