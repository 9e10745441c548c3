//! Relay and supply over unix sockets, with a test in the place of the enclave.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of it is tests"
)]

use std::path::Path;
use std::time::Duration;

use host::pipe::{self, Frame, PipeError};
use host::relay::{self, Moved};
use host::supply::{self, Ending, Stock, SupplyError};
use measurement::carrier::{BadFrame, Event, Item, Kind, MAX_FRAME, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(20);

/// Nothing here may hang: whatever takes longer than this is a failure.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(SOON, what).await.expect("in time")
}

async fn send(pipe: &mut UnixStream, kind: Kind, payload: &[u8]) {
    soon(pipe::write(pipe, kind, payload)).await.unwrap();
}

async fn next(pipe: &mut UnixStream) -> Frame {
    soon(pipe::read(pipe)).await.unwrap().expect("a frame")
}

async fn event(pipe: &mut UnixStream, stage: Stage, step: u32) {
    let event = Event { stage, step, steps: 9 };
    send(pipe, Kind::Event, &event.to_bytes()).await;
}

fn frame(kind: Kind, payload: &[u8]) -> Frame {
    Frame { kind, payload: payload.to_vec() }
}

mod relaying {
    use super::*;

    type Serving = JoinHandle<Result<Moved, PipeError>>;

    fn start(brokers: Vec<String>) -> (UnixStream, Serving) {
        let (enclave, host) = UnixStream::pair().unwrap();
        (enclave, tokio::spawn(async move { relay::serve(host, &brokers).await }))
    }

    async fn broker() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn carries_bytes_both_ways_and_says_when_the_broker_hangs_up() {
        let (listener, address) = broker().await;
        let (mut enclave, serving) = start(vec!["127.0.0.1:1".into(), address]);
        send(&mut enclave, Kind::Open, &[1]).await;
        let (mut broker, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(next(&mut enclave).await, frame(Kind::Opened, b""));
        send(&mut enclave, Kind::Data, b"question").await;
        let mut bytes = [0; 8];
        soon(broker.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(&bytes, b"question");
        broker.write_all(b"answer").await.unwrap();
        assert_eq!(next(&mut enclave).await, frame(Kind::Data, b"answer"));
        drop(broker);
        assert_eq!(next(&mut enclave).await, frame(Kind::Close, b""));
        drop(enclave);
        let moved = soon(serving).await.unwrap().unwrap();
        assert_eq!(moved, Moved { connections: 1, to_brokers: 8 });
    }

    #[tokio::test]
    async fn close_reaches_the_broker_and_the_next_open_starts_clean() {
        let (listener, address) = broker().await;
        let (mut enclave, _serving) = start(vec![address]);
        for _ in 0..3 {
            send(&mut enclave, Kind::Open, &[0]).await;
            let (mut broker, _) = soon(listener.accept()).await.unwrap();
            assert_eq!(next(&mut enclave).await, frame(Kind::Opened, b""));
            send(&mut enclave, Kind::Close, b"").await;
            assert_eq!(soon(broker.read(&mut [0; 1])).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_second_open_ends_the_first_connection_and_its_bytes() {
        let (listener, address) = broker().await;
        let (mut enclave, _serving) = start(vec![address]);
        send(&mut enclave, Kind::Open, &[0]).await;
        let (mut first, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(next(&mut enclave).await, frame(Kind::Opened, b""));
        send(&mut enclave, Kind::Open, &[0]).await;
        let (mut second, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(soon(first.read(&mut [0; 1])).await.unwrap(), 0);
        assert_eq!(next(&mut enclave).await, frame(Kind::Opened, b""));
        let _ = first.write_all(b"late").await;
        second.write_all(b"now").await.unwrap();
        assert_eq!(next(&mut enclave).await, frame(Kind::Data, b"now"));
    }

    #[tokio::test]
    async fn refuses_a_broker_that_nobody_named_or_that_is_not_there() {
        let (listener, address) = broker().await;
        drop(listener);
        let (mut enclave, _serving) = start(vec![address]);
        for broker in [0, 1, 255] {
            send(&mut enclave, Kind::Open, &[broker]).await;
            assert_eq!(next(&mut enclave).await, frame(Kind::Refused, b""));
        }
    }

    #[tokio::test]
    async fn drops_bytes_for_a_connection_that_is_gone() {
        let (mut enclave, serving) = start(Vec::new());
        send(&mut enclave, Kind::Data, b"to no one").await;
        send(&mut enclave, Kind::Close, b"").await;
        drop(enclave);
        assert_eq!(soon(serving).await.unwrap().unwrap(), Moved::default());
    }

    #[tokio::test]
    async fn a_slow_enclave_slows_the_broker_and_loses_nothing() {
        let (listener, address) = broker().await;
        let (mut enclave, _serving) = start(vec![address]);
        send(&mut enclave, Kind::Open, &[0]).await;
        let (mut broker, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(next(&mut enclave).await, frame(Kind::Opened, b""));
        const LENGTH: usize = 8 << 20;
        let writing = tokio::spawn(async move {
            broker.write_all(&vec![5; LENGTH]).await.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut received = 0;
        loop {
            let Frame { kind, payload } = next(&mut enclave).await;
            match kind {
                Kind::Data => received += payload.len(),
                kind => break assert_eq!(kind, Kind::Close),
            }
        }
        soon(writing).await.unwrap();
        assert_eq!(received, LENGTH);
    }

    #[tokio::test]
    async fn closes_on_an_oversize_frame() {
        let (listener, address) = broker().await;
        let (mut enclave, serving) = start(vec![address]);
        send(&mut enclave, Kind::Open, &[0]).await;
        let (mut broker, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(next(&mut enclave).await, frame(Kind::Opened, b""));
        enclave.write_all(&[Kind::Data.code(), 0, 0x10, 0, 1]).await.unwrap();
        let error = soon(serving).await.unwrap().unwrap_err();
        assert!(matches!(error, PipeError::Frame(BadFrame::TooLong { observed: 0x10_0001 })));
        assert!(soon(pipe::read(&mut enclave)).await.is_ok_and(|frame| frame.is_none()));
        assert_eq!(soon(broker.read(&mut [0; 1])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn closes_on_an_unknown_frame_and_on_frames_of_the_other_pipe() {
        let (mut enclave, serving) = start(Vec::new());
        enclave.write_all(&[12, 0, 0, 0, 0]).await.unwrap();
        let error = soon(serving).await.unwrap().unwrap_err();
        assert!(matches!(error, PipeError::Frame(BadFrame::Kind { observed: 12 })));
        for (kind, payload) in [
            (Kind::Want, &[1][..]),
            (Kind::Opened, &[]),
            (Kind::Open, &[]),
            (Kind::Open, &[0, 0]),
            (Kind::Close, &[0]),
        ] {
            let (mut enclave, serving) = start(Vec::new());
            send(&mut enclave, kind, payload).await;
            let error = soon(serving).await.unwrap().unwrap_err();
            let expected = frame(kind, payload).out_of_place();
            assert_eq!(error.to_string(), expected.to_string());
        }
    }

    #[tokio::test]
    async fn a_pipe_that_ends_inside_a_frame_is_broken() {
        let (mut enclave, serving) = start(Vec::new());
        enclave.write_all(&[Kind::Data.code(), 0, 0, 0, 9, 1]).await.unwrap();
        drop(enclave);
        assert!(matches!(soon(serving).await.unwrap(), Err(PipeError::Io(_))));
    }
}

mod supplying {
    use super::*;

    type Serving = JoinHandle<(Result<Ending, SupplyError>, Vec<Event>)>;

    fn start(stock: Stock) -> (UnixStream, Serving) {
        let (enclave, host) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(async move {
            let mut heard = Vec::new();
            let ending = supply::serve(host, &stock, |event| heard.push(event)).await;
            (ending, heard)
        });
        (enclave, serving)
    }

    fn stock(out: &Path) -> Stock {
        let mut stock = Stock { out: out.to_owned(), ..Stock::default() };
        let path = out.join("dataset");
        std::fs::write(&path, vec![3; 200_000]).unwrap();
        stock.insert(Item::Dataset, path);
        stock
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    async fn error(serving: Serving) -> SupplyError {
        soon(serving).await.unwrap().0.unwrap_err()
    }

    #[tokio::test]
    async fn brings_what_it_has_and_says_what_it_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, _serving) = start(stock(folder.path()));
        send(&mut enclave, Kind::Want, &[Item::Dataset.code()]).await;
        let mut received = Vec::new();
        loop {
            match next(&mut enclave).await {
                Frame { kind: Kind::Piece, payload } => received.extend(payload),
                end => break assert_eq!(end, frame(Kind::End, b"")),
            }
        }
        assert_eq!(received, vec![3; 200_000]);
        for item in [Item::Endorsements.code(), Item::Receipt.code(), 0, 255] {
            send(&mut enclave, Kind::Want, &[item]).await;
            assert_eq!(next(&mut enclave).await, frame(Kind::Absent, b""));
        }
    }

    #[tokio::test]
    async fn outputs_appear_when_they_are_complete_and_events_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, serving) = start(stock(folder.path()));
        event(&mut enclave, Stage::Stepped, 9).await;
        for (item, bytes) in [(Item::SealedAdapter, b"sealed "), (Item::Receipt, b"receipt")] {
            send(&mut enclave, Kind::Output, &[item.code()]).await;
            send(&mut enclave, Kind::Piece, bytes).await;
            assert!(!folder.path().join(supply::output_name(item).unwrap()).exists());
            send(&mut enclave, Kind::Piece, bytes).await;
            send(&mut enclave, Kind::End, b"").await;
        }
        event(&mut enclave, Stage::Done, 9).await;
        let (ending, heard) = soon(serving).await.unwrap();
        let ending = ending.unwrap();
        assert_eq!((ending.stage, ending.steps), (Stage::Done, 9));
        assert_eq!(ending.outputs.len(), 2);
        assert_eq!(heard.len(), 2);
        let bytes = std::fs::read(folder.path().join("adapter.sealed")).unwrap();
        assert_eq!(bytes, b"sealed sealed ");
        assert_eq!(names(folder.path()), ["adapter.sealed", "dataset", "job.receipt"]);
    }

    #[tokio::test]
    async fn hears_why_an_item_was_refused_in_its_middle() {
        let folder = tempfile::tempdir().unwrap();
        let mut stock = stock(folder.path());
        let long = folder.path().join("long");
        std::fs::write(&long, vec![3; 4 << 20]).unwrap();
        stock.insert(Item::Dataset, long);
        let (mut enclave, serving) = start(stock);
        send(&mut enclave, Kind::Want, &[Item::Dataset.code()]).await;
        assert_eq!(next(&mut enclave).await.kind, Kind::Piece);
        event(&mut enclave, Stage::HaltedDataset, 0).await;
        drop(enclave);
        let ending = soon(serving).await.unwrap().0.unwrap();
        assert_eq!(ending.stage, Stage::HaltedDataset);
    }

    #[tokio::test]
    async fn a_halt_is_an_ending_without_outputs() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, serving) = start(stock(folder.path()));
        event(&mut enclave, Stage::HaltedRelease, 0).await;
        let ending = soon(serving).await.unwrap().0.unwrap();
        assert_eq!(ending.stage, Stage::HaltedRelease);
        assert!(ending.outputs.is_empty());
    }

    #[tokio::test]
    async fn half_an_output_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, serving) = start(stock(folder.path()));
        send(&mut enclave, Kind::Output, &[Item::Receipt.code()]).await;
        send(&mut enclave, Kind::Piece, b"half").await;
        drop(enclave);
        assert!(matches!(error(serving).await, SupplyError::Lost));
        assert_eq!(names(folder.path()), ["dataset"]);
    }

    #[tokio::test]
    async fn refuses_an_output_over_its_cap() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, serving) = start(stock(folder.path()));
        send(&mut enclave, Kind::Output, &[Item::Receipt.code()]).await;
        let piece = vec![0; MAX_FRAME];
        // The pipe may break before all of it is written: that is the point.
        for _ in 0..=supply::MAX_RECEIPT / u64::try_from(MAX_FRAME).unwrap() {
            let _ = soon(pipe::write(&mut enclave, Kind::Piece, &piece)).await;
        }
        let expected = SupplyError::TooLong { item: Item::Receipt, required: supply::MAX_RECEIPT };
        assert_eq!(error(serving).await.to_string(), expected.to_string());
        assert_eq!(names(folder.path()), ["dataset"]);
    }

    #[tokio::test]
    async fn refuses_the_same_output_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, serving) = start(stock(folder.path()));
        for _ in 0..2 {
            send(&mut enclave, Kind::Output, &[Item::Receipt.code()]).await;
            let _ = pipe::write(&mut enclave, Kind::End, b"").await;
        }
        assert!(matches!(error(serving).await, SupplyError::Repeated(Item::Receipt)));
    }

    #[tokio::test]
    async fn an_output_is_an_output() {
        let folder = tempfile::tempdir().unwrap();
        for item in [Item::Dataset.code(), 0, 34] {
            let (mut enclave, serving) = start(stock(folder.path()));
            send(&mut enclave, Kind::Output, &[item]).await;
            let expected = frame(Kind::Output, &[item]).out_of_place();
            assert_eq!(error(serving).await.to_string(), expected.to_string());
        }
    }

    #[tokio::test]
    async fn refuses_words_outside_the_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        let (mut enclave, serving) = start(stock(folder.path()));
        send(&mut enclave, Kind::Event, b"loss 0.31").await;
        assert!(matches!(error(serving).await, SupplyError::Event { length: 9 }));
        for kind in [Kind::Open, Kind::Piece, Kind::End, Kind::Data] {
            let (mut enclave, serving) = start(stock(folder.path()));
            send(&mut enclave, kind, &[]).await;
            assert!(matches!(error(serving).await, SupplyError::Pipe(_)), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_silent_end_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let (enclave, serving) = start(stock(folder.path()));
        drop(enclave);
        assert!(matches!(error(serving).await, SupplyError::Lost));
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let stock = stock(folder.path());
        std::fs::remove_file(folder.path().join("dataset")).unwrap();
        let (mut enclave, serving) = start(stock);
        send(&mut enclave, Kind::Want, &[Item::Dataset.code()]).await;
        assert!(error(serving).await.to_string().contains("dataset"));
    }
}
