// Verify-tlog checks a log's tlog folder, or a served log, and a proof made from it, with the Go project's own
// transparency log packages and nothing of Sporlog's.
//
//	verify-tlog -vkey KEY -tlog DIR|URL [-since CHECKPOINT] [-proof FILE]
//
// It exits 1 if anything does not hold.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Tiles are of height 8 (c2sp.org/tlog-tiles).
const (
	height = 8
	width  = 1 << height
)

func main() {
	vkey := flag.String("vkey", "", "the log's public `key`")
	dir := flag.String("tlog", "", "the log's tlog `folder`, or its address, such as https://host/tlog/LOG")
	since := flag.String("since", "", "an earlier signed checkpoint, in a `file`")
	proof := flag.String("proof", "", "a tlog-proof `file`")
	flag.Parse()
	if err := run(*vkey, folder(*dir), *since, *proof); err != nil {
		fmt.Fprintln(os.Stderr, "verify-tlog:", err)
		os.Exit(1)
	}
}

func run(vkey string, dir folder, since, proof string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	signed, err := dir.read("checkpoint")
	if err != nil {
		return err
	}
	tree, err := openCheckpoint(signed, verifier)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	fmt.Printf("checkpoint: signature holds, %d entries, root %v\n", tree.N, tree.Hash)
	hashes := tlog.TileHashReader(tree, dir)
	if err := checkTiles(tree, dir, hashes); err != nil {
		return err
	}
	if err := checkInclusion(tree, dir, hashes); err != nil {
		return err
	}
	if err := checkConsistency(tree, hashes); err != nil {
		return err
	}
	if since != "" {
		if err := checkSince(tree, since, verifier, hashes); err != nil {
			return fmt.Errorf("%s: %w", since, err)
		}
	}
	if proof != "" {
		if err := checkProof(proof, verifier); err != nil {
			return fmt.Errorf("%s: %w", proof, err)
		}
	}
	return nil
}

// openCheckpoint opens a signed checkpoint (c2sp.org/tlog-checkpoint).
func openCheckpoint(signed []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.SplitN(opened.Text, "\n", 4)
	if len(lines) < 4 {
		return tlog.Tree{}, errors.New("too few lines")
	}
	if lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("it is of %q, not of %q", lines[0], verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// folder is a tlog folder, or the address of one that is served.
type folder string

func (dir folder) read(name string) ([]byte, error) {
	if !strings.Contains(string(dir), "://") {
		return os.ReadFile(filepath.Join(string(dir), name))
	}
	url := strings.TrimSuffix(string(dir), "/") + "/" + name
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 1<<20))
}

func (folder) Height() int                     { return height }
func (folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (dir folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := dir.read(path(tile))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// path is that of Go's checksum database without the height.
func path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
}

// bundle reads the entries whose hashes are in a tile of level 0.
func bundle(dir folder, tile tlog.Tile) ([][]byte, error) {
	name := strings.Replace(path(tile), "tile/0/", "tile/entries/", 1)
	data, err := dir.read(name)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s: cut off", name)
		}
		length := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:length])
		data = data[length:]
	}
	if len(entries) != tile.W {
		return nil, fmt.Errorf("%s: %d entries, not %d", name, len(entries), tile.W)
	}
	return entries, nil
}

// checkTiles checks every hash in every tile against the signed root, and every entry against its
// hash.
func checkTiles(tree tlog.Tree, dir folder, hashes tlog.HashReader) error {
	tiles, entries := 0, 0
	for _, tile := range tlog.NewTiles(height, 0, tree.N) {
		var indexes []int64
		for n := range int64(tile.W) {
			indexes = append(indexes, tlog.StoredHashIndex(tile.L*height, tile.N*width+n))
		}
		// The reader checks what it reads against the root, through the tiles above.
		read, err := hashes.ReadHashes(indexes)
		if err != nil {
			return fmt.Errorf("%s: %w", path(tile), err)
		}
		tiles++
		if tile.L > 0 {
			continue
		}
		bundled, err := bundle(dir, tile)
		if err != nil {
			return err
		}
		for n, entry := range bundled {
			if tlog.RecordHash(entry) != read[n] {
				return fmt.Errorf("entry %d does not have the hash in %s", tile.N*width+int64(n), path(tile))
			}
			entries++
		}
	}
	if int64(entries) != tree.N {
		return fmt.Errorf("%d entries, not %d", entries, tree.N)
	}
	fmt.Printf("tiles: %d, all of the signed tree; %d entries have their hashes\n", tiles, entries)
	return nil
}

// checkInclusion proves some entries to be in the tree.
func checkInclusion(tree tlog.Tree, dir folder, hashes tlog.HashReader) error {
	checked := 0
	for _, n := range []int64{0, 1, 255, 256, tree.N / 2, tree.N - 2, tree.N - 1} {
		if n < 0 || n >= tree.N {
			continue
		}
		first := n / width * width
		tile := tlog.Tile{H: height, L: 0, N: n / width, W: int(min(width, tree.N-first))}
		entries, err := bundle(dir, tile)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, n, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, n, tlog.RecordHash(entries[n-first])); err != nil {
			return fmt.Errorf("inclusion of entry %d: %w", n, err)
		}
		checked++
	}
	fmt.Printf("inclusion: %d entries proven\n", checked)
	return nil
}

// checkConsistency proves that earlier, smaller trees are the beginning of the tree.
func checkConsistency(tree tlog.Tree, hashes tlog.HashReader) error {
	checked := 0
	for _, size := range []int64{1, 256, tree.N / 3, tree.N - 1} {
		if size < 1 || size >= tree.N {
			continue
		}
		root, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return err
		}
		if err := consistent(tree, tlog.Tree{N: size, Hash: root}, hashes); err != nil {
			return fmt.Errorf("consistency with the tree of %d: %w", size, err)
		}
		checked++
	}
	fmt.Printf("consistency: %d smaller trees\n", checked)
	return nil
}

func consistent(tree, earlier tlog.Tree, hashes tlog.HashReader) error {
	proof, err := tlog.ProveTree(tree.N, earlier.N, hashes)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, earlier.N, earlier.Hash)
}

// checkSince proves that the tree continues the tree of an earlier signed checkpoint.
func checkSince(tree tlog.Tree, file string, verifier note.Verifier, hashes tlog.HashReader) error {
	signed, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	earlier, err := openCheckpoint(signed, verifier)
	if err != nil {
		return err
	}
	if err := consistent(tree, earlier, hashes); err != nil {
		return err
	}
	fmt.Printf("since: the tree continues the signed tree of %d\n", earlier.N)
	return nil
}

// checkProof checks a proof (c2sp.org/tlog-proof) by itself, without the log.
func checkProof(file string, verifier note.Verifier) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, signed, found := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("no tlog-proof")
	}
	extra, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	tree, err := openCheckpoint(signed, verifier)
	if err != nil {
		return err
	}
	entry := sha256.Sum256(extra)
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry[:])); err != nil {
		return err
	}
	// Behind the salt stands the record, which has to say the same number.
	var record struct{ ID int64 }
	if len(extra) < 16 {
		return errors.New("no record in it")
	}
	if err := json.Unmarshal(extra[16:], &record); err != nil {
		return err
	}
	if record.ID != index+1 {
		return fmt.Errorf("it is of record %d, and the entry is number %d", record.ID, index)
	}
	fmt.Printf("proof: record %d is in the signed tree of %d\n", record.ID, tree.N)
	return nil
}
