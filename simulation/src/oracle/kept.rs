//! Whether what was let go of was no more than the policies of a volume allow.
//!
//! A policy may be in force from when it was asked for until some time after another
//! one was answered: leaders hear of it late. A refusal says below which version
//! nothing can be read any more; that must be as far as one of the policies in force
//! could have gone until then, from the newest version that there may have been.

use std::time::Duration;

use cluster::{
    mvcc::{compaction::HistoryPolicy, version::Version},
    units::Instant,
};

/// How long a policy may stay in force once another one was answered: until leaders
/// hear of that, and what they asked for before is over.
const LATE: Duration = Duration::from_secs(15);
/// What clocks of machines and of the world make of the age of a version.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// A policy that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    policy: HistoryPolicy,
    at: Instant,
    /// When it was answered; none if it may be done at any time.
    answered: Option<Instant>,
}

/// What clients were told of the history of one volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    policies: Vec<Asked>,
    /// Newest versions that were told of, and when they were asked for.
    newest: Vec<(Instant, Version)>,
    /// Refusals: when, and below which version.
    refused: Vec<(Instant, Version)>,
}

impl Kept {
    /// A policy is asked for; the number by which its answer is known.
    pub(crate) fn ask(&mut self, policy: HistoryPolicy, at: Instant) -> usize {
        self.policies.push(Asked { policy, at, answered: None });
        self.policies.len() - 1
    }

    /// A policy was answered.
    pub(crate) fn answer(&mut self, number: usize, at: Instant) {
        if let Some(asked) = self.policies.get_mut(number) {
            asked.answered = Some(at);
        }
    }

    /// Who asked at a time was told a version that was the newest then or later.
    pub(crate) fn tell(&mut self, asked: Instant, version: Version) {
        self.newest.push((asked, version));
    }

    /// Somebody was refused what lies below a version.
    pub(crate) fn refuse(&mut self, at: Instant, compacted: Version) {
        self.refused.push((at, compacted));
    }

    /// No version above this one was there at a time, as far as is known.
    fn newest_at(&self, at: Instant) -> Version {
        let later = self.newest.iter().filter(|(asked, _)| *asked >= at);
        later.map(|(_, version)| *version).min().unwrap_or(Version(u64::MAX))
    }

    /// Until when a policy may be in force.
    fn until(&self, number: usize) -> Option<Instant> {
        self.policies.get(number)?.answered?;
        let later = self.policies.iter().skip(number + 1).filter_map(|later| later.answered);
        later.min().map(|answered| answered + LATE)
    }

    /// How far history may have been let go of until a time.
    fn compacted_at(&self, at: Instant) -> Version {
        let reach = |(number, asked): (usize, &Asked)| {
            let last = self.until(number).map_or(at, |until| until.min(at));
            match asked.policy {
                HistoryPolicy::Usual => Version(0),
                HistoryPolicy::Versions(kept) => {
                    Version(self.newest_at(last).0.saturating_sub(kept))
                }
                HistoryPolicy::Age(ms) => {
                    let age = Duration::from_millis(ms).saturating_sub(CLOCKS_APART);
                    if last <= Instant::ORIGIN + age {
                        return Version(0);
                    }
                    let then = Instant::ORIGIN + last.since(Instant::ORIGIN + age);
                    Version(self.newest_at(then).0.saturating_add(1))
                }
            }
        };
        let asked = self.policies.iter().enumerate().filter(|(_, asked)| asked.at <= at);
        asked.map(reach).max().unwrap_or_default()
    }

    /// Judges every refusal.
    ///
    /// # Errors
    /// One that no policy explains.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (at, compacted) in &self.refused {
            let most = self.compacted_at(*at);
            if *compacted > most {
                let policies: Vec<_> = self.policies.iter().map(|asked| asked.policy).collect();
                return Err(format!(
                    "all below {compacted} was let go of at {at:?}, where policies allow no more \
                     than {most}: {policies:?}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(number)
    }

    /// One version a second.
    fn kept(policies: &[(u64, HistoryPolicy)]) -> Kept {
        let mut kept = Kept::default();
        for (at, policy) in policies {
            let number = kept.ask(*policy, second(*at));
            kept.answer(number, second(*at));
        }
        for at in 0..200 {
            kept.tell(second(at), Version(at));
        }
        kept
    }

    fn sound(kept: &Kept, at: u64, compacted: u64) -> bool {
        let mut kept = kept.clone();
        kept.refuse(second(at), Version(compacted));
        kept.check().is_ok()
    }

    #[test]
    fn what_policies_keep_is_not_let_go_of() {
        let versions = kept(&[(0, HistoryPolicy::Versions(20))]);
        assert!(sound(&versions, 100, 80) && !sound(&versions, 100, 81));
        let age = kept(&[(0, HistoryPolicy::Age(30_000))]);
        assert!(sound(&age, 100, 72) && !sound(&age, 100, 73), "30 s less what clocks err");
        assert!(!sound(&kept(&[]), 100, 1) && !sound(&kept(&[(0, HistoryPolicy::Usual)]), 100, 1));
    }

    #[test]
    fn a_policy_is_in_force_until_some_time_after_the_next() {
        let changed = [(10, HistoryPolicy::Versions(5)), (50, HistoryPolicy::Versions(100))];
        let kept = kept(&changed);
        assert!(!sound(&kept, 9, 1), "not asked for yet");
        assert!(sound(&kept, 60, 55), "not heard of everywhere");
        assert!(sound(&kept, 150, 60) && !sound(&kept, 150, 61));
    }

    #[test]
    fn a_policy_in_doubt_may_be_in_force_at_any_time() {
        let mut kept = kept(&[(0, HistoryPolicy::Versions(100))]);
        kept.ask(HistoryPolicy::Versions(5), second(20));
        let number = kept.ask(HistoryPolicy::Versions(100), second(30));
        kept.answer(number, second(31));
        assert!(sound(&kept, 150, 145) && !sound(&kept, 150, 146));
    }
}
