// Mercure's open hub as its library gives it, without the web server that it comes with: `mercure PORT`. Each line of
// standard input is published to everyone who listens to the topic "bench".
package main

import (
	"bufio"
	"context"
	"log"
	"log/slog"
	"net/http"
	"os"

	"github.com/dunglas/mercure"
)

func main() {
	ctx := context.Background()
	transport := mercure.NewLocalTransport(mercure.NewSubscriberList(mercure.DefaultSubscriberListCacheSize))
	quiet := mercure.WithLogger(slog.New(slog.DiscardHandler))
	hub, err := mercure.NewHub(ctx, mercure.WithAnonymous(), mercure.WithTransport(transport), quiet)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			event := mercure.Event{Data: lines.Text()}
			if err := hub.Publish(ctx, &mercure.Update{Topics: []string{"bench"}, Event: event}); err != nil {
				log.Fatal(err)
			}
		}
	}()
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], hub))
}
