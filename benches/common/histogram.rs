//! Latencies, counted in buckets about 3 % wide: every delivery is recorded, and recording one costs a few nanoseconds.

/// Buckets per doubling.
const STEPS: usize = 32;

/// Counts of values from 0 up to the whole of `u64`.
pub struct Histogram {
    buckets: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; STEPS * 60],
            total: 0,
        }
    }
}

impl Histogram {
    /// Records one value.
    pub fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.total += 1;
    }

    /// The value below which this part (0 to 1) of all lies, within the bucket's width; 0 if there is none.
    pub fn quantile(&self, part: f64) -> u64 {
        let rank = (self.total as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return value(index);
            }
        }
        0
    }
}

/// Small values have a bucket each; from `2 * STEPS` on, each doubling has `STEPS` of them.
fn bucket(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize;
    let shift = bits.saturating_sub(6);
    shift * STEPS + (value >> shift) as usize
}

fn value(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - shift * STEPS) as u64) << shift
}
