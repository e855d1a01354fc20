//! Runs several futures concurrently: a branch has up to a hundred recipients, and each may need a directory.

use futures_util::stream::{self, StreamExt as _};

/// The most futures of one attempt that run concurrently.
const AT_ONCE: usize = 10;

/// The results in order; at most ten futures run concurrently.
pub(crate) async fn concurrently<F: Future>(questions: Vec<F>) -> Vec<F::Output> {
    stream::iter(questions).buffered(AT_ONCE).collect().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_at_once_and_the_answers_in_order() {
        let began = tokio::time::Instant::now();
        let slow = |n: u64| async move {
            tokio::time::sleep(Duration::from_millis(1000 - n)).await;
            n
        };
        assert_eq!(concurrently((0..25).map(slow).collect()).await, (0..25).collect::<Vec<_>>());
        let seconds = began.elapsed().as_secs_f64();
        assert!((2.9..3.1).contains(&seconds), "25 questions of a second each took {seconds} s");
        assert!(concurrently(Vec::<std::future::Ready<()>>::new()).await.is_empty());
    }
}
