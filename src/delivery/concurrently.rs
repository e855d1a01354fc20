//! Runs several futures concurrently: a branch has up to a hundred recipients, and each may need a directory.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// The most futures of one attempt that run concurrently.
const AT_ONCE: usize = 10;

/// The results in order; at most ten futures run concurrently.
pub(crate) async fn concurrently<F: Future>(questions: Vec<F>) -> Vec<F::Output> {
    let mut answers = Vec::new();
    let mut questions = questions.into_iter();
    while questions.len() > 0 {
        let some = questions.by_ref().take(AT_ONCE).map(Box::pin).map(Asked::Under).collect();
        answers.extend(all(some).await);
    }
    answers
}

/// The results in order; all futures run concurrently.
pub(super) async fn side_by_side<F: Future>(questions: Vec<F>) -> Vec<F::Output> {
    all(questions.into_iter().map(Box::pin).map(Asked::Under).collect()).await.collect()
}

enum Asked<F: Future> {
    Under(Pin<Box<F>>),
    Answered(F::Output),
}

async fn all<F: Future>(mut asked: Vec<Asked<F>>) -> impl Iterator<Item = F::Output> {
    poll_fn(|context| {
        let mut under_way = false;
        for question in &mut asked {
            if let Asked::Under(future) = question {
                match future.as_mut().poll(context) {
                    Poll::Ready(answer) => *question = Asked::Answered(answer),
                    Poll::Pending => under_way = true,
                }
            }
        }
        if under_way { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    asked.into_iter().filter_map(|question| match question {
        Asked::Answered(answer) => Some(answer),
        Asked::Under(_) => None,
    })
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
