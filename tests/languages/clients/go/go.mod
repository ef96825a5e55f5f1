module peer

go 1.19

require wormhole v0.0.0

replace wormhole => ../../../../clients/go
