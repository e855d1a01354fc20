//! Staggered concurrent attempts, such as to the addresses of a name: one that does not answer must not use up the time
//! of the others.
//!
//! `directory` connects to the addresses of a server this way, `delivery` asks smart hosts about a recipient.

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};

pub(crate) type Attempt<'a, T, E> = BoxFuture<'a, Result<T, E>>;

/// The first success; the other attempts are dropped. The next attempt begins when one has failed, or has had its share
/// of the time until `all_begun`; then both continue concurrently. If all fail, the last error; `None`: there were no
/// attempts.
pub(crate) async fn first_to_succeed<T, E>(
    attempts: Vec<Attempt<'_, T, E>>,
    all_begun: Instant,
) -> Option<Result<T, E>> {
    let mut waiting = attempts.into_iter();
    let (mut under_way, mut turn, mut failed) = (FuturesUnordered::new(), Instant::now(), None);
    loop {
        tokio::select! {
            biased;
            Some(ended) = under_way.next() => match ended {
                Ok(done) => return Some(Ok(done)),
                Err(why) => {
                    failed = Some(Err(why));
                    turn = Instant::now();
                }
            },
            () = sleep_until(turn), if waiting.len() > 0 => {
                let left = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
                turn += all_begun.saturating_duration_since(turn) / left;
                under_way.extend(waiting.next());
            }
            else => return failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    /// Ends after this many milliseconds; `None`: never.
    #[derive(Debug, Clone, Copy)]
    struct Ends(Option<u64>, bool);

    async fn run(attempts: &[Ends]) -> (Option<Result<usize, usize>>, u128) {
        let begun = Instant::now();
        let attempts = attempts.iter().copied().enumerate().map(|(number, Ends(after, succeeds))| {
            let attempt: Attempt<'_, usize, usize> = Box::pin(async move {
                match after {
                    Some(after) => sleep(Duration::from_millis(after)).await,
                    None => std::future::pending().await,
                }
                if succeeds { Ok(number) } else { Err(number) }
            });
            attempt
        });
        let all_begun = begun + Duration::from_millis(300);
        let ended = first_to_succeed(attempts.collect(), all_begun).await;
        (ended, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_dead_share_the_time_and_take_nobody_elses() {
        let (dead, refused) = (Ends(None, false), Ends(Some(0), false));
        for (attempts, ended, after) in [
            (&[][..], None, 0),
            (&[Ends(Some(20), true)], Some(Ok(0)), 20),
            (&[refused], Some(Err(0)), 0),
            (&[refused, refused], Some(Err(1)), 0),
            (&[refused, Ends(Some(20), true)], Some(Ok(1)), 20),
            (&[dead, Ends(Some(20), true)], Some(Ok(1)), 170),
            (&[dead, dead, Ends(Some(20), true)], Some(Ok(2)), 220),
            (&[dead, refused, Ends(Some(20), true)], Some(Ok(2)), 120),
            // A slow one that has had its share is not given up.
            (&[Ends(Some(200), true), dead], Some(Ok(0)), 200),
            (&[Ends(Some(900), true), Ends(Some(900), false)], Some(Ok(0)), 900),
            (&[Ends(Some(900), false), refused], Some(Err(0)), 900),
        ] {
            let (got, took) = run(attempts).await;
            assert_eq!(got, ended, "{attempts:?}");
            // The clock of a paused runtime ticks in milliseconds.
            assert!((after..after + 3).contains(&took), "{attempts:?}: {took} ms");
        }
    }
}
