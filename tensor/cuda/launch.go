package cuda

import (
	"fmt"
	"unsafe"
)

// grid is the shape of a launch: blocks (Y and Z 0 mean 1; X 0 launches nothing),
// threads of a block, and bytes of dynamic shared memory.
type grid struct {
	X, Y, Z int
	Threads int
	Shared  int
}

// launch enqueues a kernel, named "FAMILY.NAME". args mirrors the kernel's struct of
// arguments, field by field.
func launch[A any](d *Device, kernel string, g grid, args *A) {
	if g.X == 0 || d.failed() {
		return
	}
	d.enter()
	defer d.leave()
	f, err := d.function(kernel, g.Shared)
	if err != nil {
		d.fail(err)
		return
	}
	if done := d.timed(kernel); done != nil {
		defer done()
	}
	params := [1]unsafe.Pointer{address(args)}
	code := call(cu.launchKernel, f, uintptr(g.X), uintptr(max(g.Y, 1)), uintptr(max(g.Z, 1)), uintptr(g.Threads), 1, 1,
		uintptr(g.Shared), d.stream, address(&params[0]), 0)
	if code != 0 {
		d.fail(check("cuLaunchKernel", code, "%s, grid %d x %d x %d of %d threads, %d bytes shared: %s", kernel, g.X, max(g.Y, 1), max(g.Z, 1),
			g.Threads, g.Shared, fmt.Sprintf("%+v", *args)))
	}
}
