// Package model holds the Vision Transformer: its parameters, its forward pass, what it looked at, how its
// weights are read and which compute backend runs it. It imports none of Fovea's other rooms.
//
// A reader starts at vit.go, the network on one screen; relevance.go explains a prediction; net.go is the
// compiled and warmed model that the daemon owns.
package model
