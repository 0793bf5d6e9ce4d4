package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// receivers are those of a script, by the file that they write.
type receivers struct {
	mu   sync.Mutex // guards open
	open map[string]*receiver
}

// receiversKey is where a script's values have its receivers.
type receiversKey struct{}

// receiver takes log lines over a network, or as datagrams, and appends them to
// a file.
type receiver struct {
	log    *os.File
	closer io.Closer

	mu    sync.Mutex // guards conns
	conns []net.Conn
	wg    sync.WaitGroup
}

func cmdReceive(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg && len(args) == 1 || !neg && (len(args) == 2 || len(args) == 3), "receive tcp|tls|unix|udp|unixgram LOG [ADDRESS], or ! receive LOG")
	all := ts.Value(receiversKey{}).(*receivers)
	if neg {
		all.end(ts.MkAbs(args[0]))
		return
	}
	network, log, address := args[0], ts.MkAbs(args[1]), ""
	if len(args) == 3 {
		address = args[2]
	}
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	ts.Check(err)
	r := &receiver{log: f}
	address, err = r.listen(network, address, ts.Getenv("WORK"), filepath.Dir(ts.Getenv("PM_SOCKET")))
	ts.Check(err)
	all.mu.Lock()
	all.open[log] = r
	all.mu.Unlock()
	ts.Setenv("ADDRESS", address)
	ts.Setenv("RECEIVER", network+"://"+address)
	if network == "tls" {
		ts.Setenv("RECEIVER", "tls://"+address+"?ca="+ts.MkAbs("ca.pem"))
	}
}

// end ends a receiver: its kernel resets connections with bytes unread.
func (all *receivers) end(log string) {
	all.mu.Lock()
	r := all.open[log]
	delete(all.open, log)
	all.mu.Unlock()
	if r == nil {
		return
	}
	_ = r.closer.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
	_ = r.log.Close()
}

// endAll ends all receivers of a script.
func (all *receivers) endAll() {
	for {
		all.mu.Lock()
		name := ""
		for name = range all.open {
			break
		}
		all.mu.Unlock()
		if name == "" {
			return
		}
		all.end(name)
	}
}

// listen begins to receive, in short for sockets without an address. A
// certificate's authority goes into work.
func (r *receiver) listen(network, address, work, short string) (string, error) {
	switch network {
	case "udp", "unixgram":
		return r.listenDatagrams(network, orSocket(address, network, short))
	case "tls":
		config, err := testCertificate(filepath.Join(work, "ca.pem"))
		if err != nil {
			return "", err
		}
		l, err := tls.Listen("tcp", orSocket(address, network, short), config)
		return r.serve(l, err)
	default:
		l, err := net.Listen(network, orSocket(address, network, short))
		return r.serve(l, err)
	}
}

// orSocket is the address to listen at if none is given: any port, or a path.
func orSocket(address, network, short string) string {
	switch {
	case address != "":
		return address
	case strings.HasPrefix(network, "unix"):
		return filepath.Join(short, network)
	}
	return "127.0.0.1:0"
}

func (r *receiver) serve(l net.Listener, err error) (string, error) {
	if err != nil {
		return "", err
	}
	r.closer = l
	r.wg.Go(func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			r.wg.Go(func() { r.read(c) }) // ends when the connection does
		}
	})
	return l.Addr().String(), nil
}

// read appends whole lines to the file.
func (r *receiver) read(c net.Conn) {
	defer func() { _ = c.Close() }()
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		_, _ = r.log.Write(line)
	}
}

func (r *receiver) listenDatagrams(network, address string) (string, error) {
	c, err := net.ListenPacket(network, address)
	if err != nil {
		return "", err
	}
	r.closer = c
	r.wg.Go(func() { // ends when the socket is closed
		buffer := make([]byte, 1<<17)
		for {
			n, _, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = r.log.Write(append(bytes.TrimSuffix(buffer[:n], []byte("\n")), '\n'))
		}
	})
	return c.LocalAddr().String(), nil
}

// testCertificate makes a certificate for a receiver, and writes its authority,
// which is itself, to a file.
func testCertificate(authority string) (*tls.Config, error) {
	der, key, err := newCertificate()
	if err != nil {
		return nil, err
	}
	err = writePEM(authority, "CERTIFICATE", der)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, err
}

// cmdCertificate writes a certificate for this machine, which is its own authority, and
// its key.
func cmdCertificate(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "certificate FILE KEYFILE")
	der, key, err := newCertificate()
	ts.Check(err)
	ts.Check(writePEM(ts.MkAbs(args[0]), "CERTIFICATE", der))
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(writePEM(ts.MkAbs(args[1]), "PRIVATE KEY", secret))
}

// newCertificate makes a certificate for this machine, with its key.
func newCertificate() (der []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "receiver"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return der, key, err
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
