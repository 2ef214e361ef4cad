//! The lines: each measurement as it comes, and at the end the medians with
//! their ratio to etcd's.

use std::{collections::BTreeMap, time::Duration};

/// What one measurement found.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    /// Operations, or events, a second.
    rate: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    /// CPU seconds of the servers per million.
    cpu: f64,
}

impl Figures {
    /// Of microseconds of each, within a span and a use of CPU.
    pub(crate) fn of(mut took: Vec<u64>, passed: Duration, cpu: f64) -> Self {
        took.sort_unstable();
        let count = took.len() as f64;
        let at = |share: usize| took[(took.len() - 1) * share / 100] as f64 / 1_000.0;
        let rate = count / passed.as_secs_f64();
        Self { rate, p50: at(50), p99: at(99), cpu: cpu / count * 1e6 }
    }

    fn line(&self) -> String {
        format!("{:>9.0} {:>8.2} {:>8.2} {:>9.0}", self.rate, self.p50, self.p99, self.cpu)
    }

    /// The median of each.
    fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut all: Vec<f64> = all.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        Self { rate: of(|f| f.rate), p50: of(|f| f.p50), p99: of(|f| f.p99), cpu: of(|f| f.cpu) }
    }
}

/// Measurements of the two, by what was measured in the order it was.
pub(crate) struct Report {
    names: Vec<(&'static str, usize)>,
    figures: BTreeMap<(usize, &'static str), Vec<Figures>>,
}

impl Report {
    pub(crate) fn begin() -> Self {
        println!(" who   what  cli       1/s   p50 ms   p99 ms  CPU s/M");
        Self { names: Vec::new(), figures: BTreeMap::new() }
    }

    pub(crate) fn note(
        &mut self,
        who: &'static str,
        what: &'static str,
        clients: usize,
        figures: Figures,
    ) {
        println!("{who:>5} {what:>5} {clients:>4} {}", figures.line());
        let name = (what, clients);
        let at = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.figures.entry((at, who)).or_default().push(figures);
    }

    pub(crate) fn medians(&self) {
        println!("medians, and how many times etcd's (more is better, but for CPU)");
        for (at, (what, clients)) in self.names.iter().enumerate() {
            let of = |who| self.figures.get(&(at, who)).map(|all| Figures::median(all));
            let Some(etcd) = of("etcd") else { continue };
            for who in ["etcd", "cdb", "other", "ceil"] {
                let Some(figures) = of(who) else { continue };
                print!("{who:>5} {what:>5} {clients:>4} {}", figures.line());
                let ratios = (figures.rate / etcd.rate, figures.cpu / etcd.cpu);
                println!("  {:.2} x, CPU {:.2} x", ratios.0, ratios.1);
            }
        }
    }
}
