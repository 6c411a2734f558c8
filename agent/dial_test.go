package agent

import (
	"context"
	"log/slog"
	"net"
)

var quiet = slog.New(slog.DiscardHandler)

func countingDial(tries chan<- struct{}) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case tries <- struct{}{}:
		default:
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}
