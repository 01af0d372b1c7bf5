// Load for the etcd peer of consensus.py, with etcd's own Go client (as etcd's `benchmark put` does it): as many
// goroutines as writes are outstanding, over a few connections to the leader. Prints one JSON object: the rate, the
// latencies, and how much processor time this client itself took, so that it can be seen not to be the limit.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
)

var (
	endpoints   = flag.String("endpoints", "", "client URLs of the members, comma-separated")
	action      = flag.String("do", "load", "load | fill | leader | reach")
	connections = flag.Int("connections", 1, "connections to share")
	outstanding = flag.Int("outstanding", 1, "writes under way at once")
	valueBytes  = flag.Int("bytes", 256, "size of a value")
	changes     = flag.Int("changes", 1, "puts in one transaction")
	seconds     = flag.Float64("seconds", 1, "how long to write")
	entries     = flag.Int("entries", 0, "fill: values to put")
	index       = flag.Uint64("index", 0, "reach: raft index to wait for")
)

const keys = 10000

func main() {
	flag.Parse()
	urls := strings.Split(*endpoints, ",")
	if *action == "reach" {
		reach(urls[0])
		return
	}
	leader := leaderOf(urls)
	if *action == "leader" {
		report(map[string]string{"url": leader})
		return
	}
	clients := make([]*clientv3.Client, *connections)
	for i := range clients {
		clients[i] = connect(leader)
	}
	if *action == "fill" {
		fill(clients)
		report(map[string]float64{"index": float64(status(clients[0], leader).RaftIndex)})
		return
	}
	load(clients)
}

func connect(url string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, DialTimeout: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func status(client *clientv3.Client, url string) *clientv3.StatusResponse {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	found, err := client.Status(ctx, url)
	if err != nil {
		log.Fatal(err)
	}
	return found
}

func leaderOf(urls []string) string {
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		for _, url := range urls {
			client := connect(url)
			found := status(client, url)
			client.Close()
			if found.Leader != 0 && found.Leader == found.Header.MemberId {
				return url
			}
		}
	}
	log.Fatal("no member leads")
	return ""
}

func write(client *clientv3.Client, number int, value string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var err error
	if *changes == 1 {
		_, err = client.Put(ctx, key(number), value)
	} else {
		puts := make([]clientv3.Op, *changes)
		for i := range puts {
			puts[i] = clientv3.OpPut(key(number**changes+i), value)
		}
		_, err = client.Txn(ctx).Then(puts...).Commit()
	}
	if err != nil {
		log.Fatal(err)
	}
}

func key(number int) string { return fmt.Sprintf("%016d", number%keys) }

func load(clients []*clientv3.Client) {
	value := string(make([]byte, *valueBytes))
	took := make([][]time.Duration, *outstanding)
	var all sync.WaitGroup
	began := time.Now()
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	for writer := 0; writer < *outstanding; writer++ {
		all.Add(1)
		go func(writer int) {
			defer all.Done()
			for number, at := writer, time.Now(); at.Before(end); number += *outstanding {
				write(clients[writer%len(clients)], number, value)
				now := time.Now()
				took[writer] = append(took[writer], now.Sub(at))
				at = now
			}
		}(writer)
	}
	all.Wait()
	elapsed := time.Since(began).Seconds()
	var sorted []time.Duration
	for _, one := range took {
		sorted = append(sorted, one...)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	milliseconds := func(place int) float64 { return sorted[place].Seconds() * 1000 }
	report(map[string]float64{
		"rate":         float64(len(sorted)) / elapsed,
		"p50_ms":       milliseconds(len(sorted) / 2),
		"p99_ms":       milliseconds(len(sorted) * 99 / 100),
		"client_cores": cpuSeconds() / elapsed,
	})
}

func fill(clients []*clientv3.Client) {
	value := string(make([]byte, *valueBytes))
	var next int64 = -1
	var all sync.WaitGroup
	for writer := 0; writer < *outstanding; writer++ {
		all.Add(1)
		go func(client *clientv3.Client) {
			defer all.Done()
			for number := atomic.AddInt64(&next, 1); number < int64(*entries); number = atomic.AddInt64(&next, 1) {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				if _, err := client.Put(ctx, fmt.Sprintf("%016d", number), value); err != nil {
					log.Fatal(err)
				}
				cancel()
			}
		}(clients[writer%len(clients)])
	}
	all.Wait()
}

// reach returns when a member that was just started answers and has applied everything up to `index`.
func reach(url string) {
	address := strings.TrimPrefix(url, "http://")
	until := time.Now().Add(60 * time.Second)
	// Not by gRPC, which would wait for a second after the first refusal.
	for ; time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		if connection, err := net.Dial("tcp", address); err == nil {
			connection.Close()
			break
		}
	}
	client := connect(url)
	for ; time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		found, err := client.Status(ctx, url)
		cancel()
		if err == nil && found.RaftAppliedIndex >= *index {
			return
		}
	}
	log.Fatal("not reached")
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func report(figures any) {
	if err := json.NewEncoder(os.Stdout).Encode(figures); err != nil {
		log.Fatal(err)
	}
}
