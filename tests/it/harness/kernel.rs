//! What the kernel does behind our backs.

use std::fs;

/// More than the kernel keeps for a socket that is not read.
pub fn more_than_kernel_buffers() -> usize {
    let limits = fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
    let most = limits
        .split_whitespace()
        .last()
        .and_then(|most| most.parse().ok());
    most.unwrap_or(4 << 20) * 3 / 2 + (1 << 20)
}
