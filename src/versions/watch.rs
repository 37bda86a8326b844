//! Announces new versions to requests that wait for them.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use super::{
    reader::VersionReader,
    version::{VersionRead, Versions},
};

/// The interval between two version reads while anybody waits.
const READ_INTERVAL: Duration = Duration::from_millis(200);

/// The latest versions that a task has read. It reads while there are receivers, whatever their number.
pub(crate) struct VersionWatch {
    reader: Arc<VersionReader>,
    latest: watch::Sender<Option<Versions>>,
    has_receiver: Notify,
}

impl VersionWatch {
    pub(crate) fn start(reader: Arc<VersionReader>) -> Arc<Self> {
        let this = Arc::new(Self { reader, latest: watch::Sender::new(None), has_receiver: Notify::new() });
        tokio::spawn(Arc::clone(&this).read_task());
        this
    }

    /// Returns a receiver of the versions. At first it may show older ones than the database, or none.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Versions>> {
        let receiver = self.latest.subscribe();
        self.has_receiver.notify_one();
        receiver
    }

    async fn read_task(self: Arc<Self>) {
        loop {
            while self.latest.receiver_count() == 0 {
                self.has_receiver.notified().await;
            }
            // without the database there is nothing to announce
            if let Ok(VersionRead::Verified(versions)) = self.reader.current().await {
                self.latest.send_if_modified(|latest| latest.replace(versions) != Some(versions));
            }
            tokio::time::sleep(READ_INTERVAL).await;
        }
    }
}
