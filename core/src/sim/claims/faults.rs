//! The random faults of a world of claims.

use rand::RngExt;

use super::{ClaimsWorld, What};

impl ClaimsWorld {
    /// Runs with one random fault after the other, for this long.
    pub fn run_with_faults(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            let pause = self.rng.random_range(200..4_000);
            self.run_for(pause);
            self.fault();
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss_permille = 0;
    }

    /// One fault, or the end of some.
    fn fault(&mut self) {
        let count = self.hosts.len();
        let (one, other) = (self.rng.random_range(0..count), self.rng.random_range(0..count));
        match self.rng.random_range(0..14) {
            0 => {
                self.cut.insert((one, other));
            }
            1 => self
                .cut
                .extend((0..count).flat_map(|peer| [(one, peer), (peer, one)]).filter(|(a, b)| a != b)),
            2 => {
                // A chain: each host hears only its neighbours.
                let far = |a: &usize, b: &usize| a.abs_diff(*b) > 1;
                let pairs = (0..self.voters).flat_map(|a| (0..self.voters).map(move |b| (a, b)));
                self.cut.extend(pairs.filter(|(a, b)| far(a, b)));
            }
            3..=5 => self.heal(),
            6 => self.loss_permille = self.rng.random_range(0..200),
            7 => self.crash(one, false),
            8 => (0..self.voters).for_each(|voter| self.crash(voter, false)),
            9 if self.lost_stores < (self.voters - 1) / 2 && one < self.voters && self.hosts[one].stored => {
                self.lost_stores += 1;
                self.crash(one, true);
            }
            10 | 11 => {
                self.hosts[one].frozen = true;
                let ms = self.rng.random_range(100..30_000);
                self.after(ms, What::Thaw(one));
            }
            12 => {
                self.hosts[one].suspended = true;
                let ms = self.rng.random_range(100..30_000);
                self.after(ms, What::Thaw(one));
            }
            _ => {
                for host in 0..count {
                    if self.blocks(host, one) || self.rng.random_range(0..4) == 0 {
                        self.hang_up(host, one);
                    }
                }
            }
        }
    }
}
