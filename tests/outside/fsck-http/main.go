// Fsck-http checks a log that is being served, over HTTP, with Tessera's client for transparency logs
// (github.com/transparency-dev/tessera) and nothing of Sporlog's.
//
//	fsck-http -vkey KEY -url URL [-append FILE -to URL -apikey KEY]
//
// It fetches every tile and every entry below URL, computes the tree anew and compares. With -append,
// the content of FILE, one record, is posted in the middle of that: what is being checked must go on
// as it was, the log must then be one longer and consistent with what it was, and its newest entry must
// be in it. It exits 1 if anything does not hold.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

const (
	// Requests at once.
	workers = 8
	// The record is appended when so many tiles and bundles have been fetched.
	appendAfter = 100
	// A check takes no longer than this, and a new record is in the tree by then.
	patience = 2 * time.Minute
	grace    = 10 * time.Second
)

func main() {
	vkey := flag.String("vkey", "", "the log's public `key`")
	base := flag.String("url", "", "the `address` that the log's checkpoint and tiles are below")
	file := flag.String("append", "", "post the record in this `file` meanwhile")
	to := flag.String("to", "", "the `address` to post it to")
	key := flag.String("apikey", "", "the `key` to post it with")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, *vkey, *base, post(*file, *to, *key))
	}()
	var err error
	select {
	case err = <-done:
	// Fsck does not end by itself where all of its workers have failed.
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		// Of a tile that is wrong, it holds all that is in it.
		fmt.Fprintf(os.Stderr, "fsck-http: %.200s\n", err.Error())
		os.Exit(1)
	}
}

// post makes a function that posts a file; nil if there is none.
func post(file, to, key string) func() error {
	if file == "" {
		return nil
	}
	return func() error {
		record, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		request, err := http.NewRequest(http.MethodPost, to, bytes.NewReader(record))
		if err != nil {
			return err
		}
		request.Header.Set("ApiKey", key)
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if response.StatusCode/100 != 2 {
			return fmt.Errorf("posting a record: %s: %s", response.Status, body)
		}
		return nil
	}
}

func run(ctx context.Context, vkey, base string, appendOne func() error) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	root, err := url.Parse(base)
	if err != nil {
		return err
	}
	fetcher, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		return err
	}
	log := &disturbed{HTTPFetcher: fetcher, disturb: appendOne}
	consensus := client.UnilateralConsensus(fetcher.ReadCheckpoint)
	tracker, err := client.NewLogStateTracker(ctx, fetcher.ReadTile, nil, verifier, verifier.Name(), consensus)
	if err != nil {
		return fmt.Errorf("the checkpoint: %w", err)
	}
	before := tracker.Latest().Size
	if err := check(ctx, verifier, log); err != nil {
		return err
	}
	fmt.Printf("%d entries: all tiles, all entries and the root hold, in %d requests\n", before, log.fetched.Load())
	if appendOne == nil {
		return nil
	}
	if log.failed != nil {
		return log.failed
	}
	if log.fetched.Load() < appendAfter {
		return errors.New("the log is too short to append to it meanwhile")
	}
	if err := grown(ctx, tracker, before); err != nil {
		return err
	}
	after := tracker.Latest()
	fmt.Printf("%d entries: consistent with the %d before\n", after.Size, before)
	if err := included(ctx, fetcher, after.Size-1, after.Size, after.Hash); err != nil {
		return fmt.Errorf("the newest entry: %w", err)
	}
	log.disturb = nil
	return check(ctx, verifier, log)
}

func check(ctx context.Context, verifier note.Verifier, log fsck.Fetcher) error {
	return fsck.New(verifier.Name(), verifier, log, leafHashes, fsck.Opts{N: workers}).Check(ctx)
}

// grown waits until the log is longer by one; that it is consistent is looked after by the tracker.
func grown(ctx context.Context, tracker *client.LogStateTracker, before uint64) error {
	for until := time.Now().Add(grace); ; time.Sleep(50 * time.Millisecond) {
		if _, _, _, err := tracker.Update(ctx); err != nil {
			return fmt.Errorf("from %d entries on: %w", before, err)
		}
		size := tracker.Latest().Size
		if size > before+1 {
			return fmt.Errorf("%d entries became %d by one record", before, size)
		}
		if size == before+1 {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("the record that was posted is in no checkpoint")
		}
	}
}

// included checks that an entry, as its bundle has it, is in the tree.
func included(ctx context.Context, log *client.HTTPFetcher, index, size uint64, root []byte) error {
	builder, err := client.NewProofBuilder(ctx, size, log.ReadTile)
	if err != nil {
		return err
	}
	path, err := builder.InclusionProof(ctx, index)
	if err != nil {
		return err
	}
	bundle, err := client.GetEntryBundle(ctx, log.ReadEntryBundle, index/layout.EntryBundleWidth, size)
	if err != nil {
		return err
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(bundle.Entries[index%layout.EntryBundleWidth])
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf, path, root)
}

// leafHashes reads a bundle of entries.
func leafHashes(bundle []byte) ([][]byte, error) {
	var entries api.EntryBundle
	if err := entries.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, entry := range entries.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}

// disturbed is a log on which something is done while it is being read.
type disturbed struct {
	*client.HTTPFetcher
	disturb func() error
	once    sync.Once
	failed  error
	fetched atomic.Int64
}

func (d *disturbed) count() {
	if d.fetched.Add(1) >= appendAfter && d.disturb != nil {
		d.once.Do(func() { d.failed = d.disturb() })
	}
}

func (d *disturbed) ReadTile(ctx context.Context, level, index uint64, width uint8) ([]byte, error) {
	d.count()
	return d.HTTPFetcher.ReadTile(ctx, level, index, width)
}

func (d *disturbed) ReadEntryBundle(ctx context.Context, index uint64, width uint8) ([]byte, error) {
	d.count()
	return d.HTTPFetcher.ReadEntryBundle(ctx, index, width)
}
