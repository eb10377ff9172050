package atomicfile

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) // FlushFileBuffers wants a writable handle
	if err != nil {
		return err
	}
	err = f.Sync()
	f.Close()
	return err
}

// syncFolder has nothing to do: NTFS journals renames, and a folder's handle
// cannot be flushed.
func syncFolder(string) error { return nil }

func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func processAlive(pid int) bool {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	defer windows.CloseHandle(h)
	var code uint32
	const stillActive = 259
	return windows.GetExitCodeProcess(h, &code) == nil && code == stillActive
}
