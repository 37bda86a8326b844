//! Clients that follow the change feed through a random history, from any earlier state.

use super::Violation;
use crate::{changes::follower::Follower, harness::TestClient, stress::Rng};

/// Copies that are kept.
const COPIES: usize = 8;
/// Copies that are chosen at a time, at most.
const MAX_CHOSEN: usize = 3;
const PAGE_SIZES: [usize; 7] = [1, 3, 10, 60, 300, 1_000, 10_000];
/// Pages of the changes of one step, at most. The average page has more than 1,000 products.
const MAX_PAGES: usize = 1_000;

/// A copy of the list of an earlier step.
struct Copy {
    list: Follower,
    /// Whether its token may have expired.
    may_be_expired: bool,
}

/// Copies of the list of earlier steps.
#[derive(Default)]
pub struct Copies {
    copies: Vec<Copy>,
    /// The number of copies that followed the feed through changes.
    pub followed: usize,
    /// The number of copies whose token had expired.
    pub expired: usize,
}

impl Copies {
    /// Takes note of changes after which all tokens may expire.
    pub fn expire(&mut self) {
        for copy in &mut self.copies {
            copy.may_be_expired = true;
        }
    }

    /// Lets copies, chosen at random, follow the feed to the present list until one has followed it through changes, and
    /// compares them with the list. It takes the place of these copies.
    pub async fn follow_some(
        &mut self,
        instances: &[&TestClient],
        present: &Follower,
        rng: &mut Rng,
    ) -> Result<(), Violation> {
        if self.copies.len() < COPIES {
            self.copies.push(Copy { list: present.clone(), may_be_expired: false });
        }
        let followed = self.followed;
        for _ in 0..MAX_CHOSEN {
            let index = rng.index(self.copies.len());
            let latest = Copy { list: present.clone(), may_be_expired: false };
            let chosen = std::mem::replace(&mut self.copies[index], latest);
            self.follow(chosen, instances, present, rng).await?;
            if self.followed > followed {
                break;
            }
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        Copy { mut list, may_be_expired }: Copy,
        instances: &[&TestClient],
        present: &Follower,
        rng: &mut Rng,
    ) -> Result<(), Violation> {
        let since = list.token.clone();
        match follow(&mut list, instances, rng).await {
            Some(()) if list != *present => {
                return Err("a client that follows the feed has another list than a full fill".to_owned());
            }
            Some(()) => self.followed += usize::from(list.token != since),
            None if may_be_expired => self.expired += 1,
            None => return Err("a token has expired although the log knows the changes since".to_owned()),
        }
        Ok(())
    }
}

/// Follows the feed to its end, in pages of random sizes from any of the instances. Returns `None` if the token of the
/// copy has expired.
pub async fn follow(copy: &mut Follower, instances: &[&TestClient], rng: &mut Rng) -> Option<()> {
    for _ in 0..MAX_PAGES {
        if !apply_page(copy, instances, rng).await? {
            return Some(());
        }
    }
    panic!("the feed has no end after {}", copy.token);
}

/// Applies a page of a random size from any of the instances. Returns whether there are more, or `None` if the token of
/// the copy has expired.
pub async fn apply_page(copy: &mut Follower, instances: &[&TestClient], rng: &mut Rng) -> Option<bool> {
    let instance = *rng.pick(instances);
    copy.apply_known_page(instance, *rng.pick(&PAGE_SIZES)).await
}
