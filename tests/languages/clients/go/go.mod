module peer

go 1.19

require github.com/wormhole-rs/wormhole-rs/clients/go v0.0.0

replace github.com/wormhole-rs/wormhole-rs/clients/go => ../../../../clients/go
