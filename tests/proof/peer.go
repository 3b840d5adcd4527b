// Reads a log and a proof with golang.org/x/mod/sumdb, the implementation that signed notes and tiles come from.
//
// Arguments: the directory of the log, the public key that has signed its checkpoint, a proof, and the key that has
// signed the checkpoint in it. Prints the size of the log and the entry that the proof shows.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type tiles string

func (dir tiles) Height() int                               { return 8 }
func (dir tiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (dir tiles) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		octets, err := os.ReadFile(filepath.Join(string(dir), path))
		if err != nil {
			return nil, err
		}
		data = append(data, octets)
	}
	return data, nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func open(text []byte, key string) tlog.Tree {
	verifier, err := note.NewVerifier(key)
	check(err)
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		log.Fatal("another origin: ", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}
}

func entries(dir string, size int64) (all [][]byte) {
	for int64(len(all)) < size {
		tile := tlog.TileForIndex(8, tlog.StoredHashIndex(0, int64(len(all))))
		tile.W = 256
		if left := size - int64(len(all)); left < 256 {
			tile.W = int(left)
		}
		path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
		bundle, err := os.ReadFile(filepath.Join(dir, path))
		check(err)
		for len(bundle) > 0 {
			length := 2 + int(binary.BigEndian.Uint16(bundle))
			all, bundle = append(all, bundle[2:length]), bundle[length:]
		}
	}
	return all
}

func main() {
	dir, key, proof, proofKey := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	check(err)
	tree := open(text, key)
	hashes := tlog.TileHashReader(tree, tiles(dir))
	for index, entry := range entries(dir, tree.N) {
		path, err := tlog.ProveRecord(tree.N, int64(index), hashes)
		check(err)
		check(tlog.CheckRecord(path, tree.N, tree.Hash, int64(index), tlog.RecordHash(entry)))
	}

	text, err = os.ReadFile(proof)
	check(err)
	head, checkpoint, _ := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	shown := open(checkpoint, proofKey)
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	check(err)
	var path tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		check(err)
		path = append(path, hash)
	}
	octets, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	check(err)
	var extra struct{ Entry []byte }
	check(json.Unmarshal(octets, &extra))
	check(tlog.CheckRecord(path, shown.N, shown.Hash, index, tlog.RecordHash(extra.Entry)))
	longer, err := tlog.ProveTree(tree.N, shown.N, hashes)
	check(err)
	check(tlog.CheckTree(longer, tree.N, tree.Hash, shown.N, shown.Hash))
	fmt.Printf("%d %s\n", tree.N, extra.Entry)
}
