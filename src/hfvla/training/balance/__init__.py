"""Loss terms balanced while a stage trains, and how their gradients agree."""
