module github.com/wormhole-rs/wormhole-rs/clients/go

go 1.19
