package alert

import (
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxPassword bounds what is read of a password file.
const maxPassword = 4096

// readPassword returns what stands in the file at path, without the newline at
// its end, and the file's mode. It refuses a file that all users may read.
func readPassword(path string) (string, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	mode := info.Mode()
	if !mode.IsRegular() {
		return "", mode, fmt.Errorf("%s is not a regular file", path)
	}
	if mode&0o007 != 0 {
		return "", mode, fmt.Errorf("%s has mode %04o and so is open to every user: chmod 600 %[1]s", path, mode.Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err != nil {
		return "", mode, err
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" || len(data) > maxPassword {
		return "", mode, fmt.Errorf("%s holds no password of 1 to %d bytes", path, maxPassword)
	}
	return password, mode, nil
}

// readCAs returns the certificates in the PEM file at path.
func readCAs(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return pool, nil
}
