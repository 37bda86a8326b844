//! The PostgreSQL servers of a run: a primary and, from time to time, a standby that replaces it.

use std::net::SocketAddr;

use tokio_postgres::Client;

use crate::harness::{Proxy, Services, connect, host_and_port, via_proxy, wait_until};

/// Two instances of `scripts/services`. One has the primary, the first has Redis.
pub struct Database {
    servers: [Services; 2],
    primary: usize,
    /// A proxy in front of the primary, for programs that write in SQL and for a pooler.
    link: Proxy,
}

impl Database {
    /// Starts a primary, and Redis.
    pub async fn start(name: &str) -> Self {
        let servers = [Services::up(name), Services::named(&format!("{name}-b"))];
        let link = Proxy::start(host_and_port(&servers[0].database_url).to_owned()).await;
        Self { servers, primary: 0, link }
    }

    /// The instance with the primary.
    pub fn primary(&self) -> &Services {
        &self.servers[self.primary]
    }

    /// The instance with Redis.
    pub fn redis(&self) -> &Services {
        &self.servers[0]
    }

    /// The address of the primary (`host:port`).
    pub fn address(&self) -> &str {
        host_and_port(&self.primary().database_url)
    }

    /// An address that stays the same when a standby is promoted.
    pub fn link_address(&self) -> SocketAddr {
        self.link.address
    }

    /// Returns a URL of the primary with the address that stays the same.
    pub fn via_link(&self, url: &str) -> String {
        via_proxy(url, self.link.address)
    }

    /// Starts a standby, which needs a restart of the primary, and waits until the primary acknowledges only transactions
    /// that the standby has received.
    pub async fn start_synchronous_standby(&mut self) {
        let [first, second] = &mut self.servers;
        if self.primary == 0 {
            first.start_standby(second);
        } else {
            second.start_standby(first);
        }
        self.link.set_server(self.address().to_owned());
        let owner = connect(&self.primary().database_url).await;
        let enable = "alter system set synchronous_standby_names = '*'";
        owner.batch_execute(enable).await.unwrap();
        owner.batch_execute("select pg_reload_conf()").await.unwrap();
        let state = "select count(*) from pg_stat_replication where sync_state = 'sync' and state = 'streaming'";
        wait_until("the standby is synchronous", async || count(&owner, state).await == 1).await;
        // the checkpointer applies the setting, for all other processes, before it begins a checkpoint
        owner.batch_execute("checkpoint").await.unwrap();
        let position: String = owner.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let received = format!("select count(*) from pg_stat_replication where flush_lsn >= '{position}'");
        wait_until("the standby has received everything", async || count(&owner, &received).await == 1).await;
    }

    /// Kills the primary. From now on the standby is the primary, but not promoted.
    pub fn kill_primary(&mut self) {
        self.primary().kill_database();
        self.primary = 1 - self.primary;
    }

    /// Promotes the standby, to which all links of [`Self::link_address`] go from now on.
    pub async fn promote(&self) {
        let owner = connect(&self.primary().database_url).await;
        let is_promoted: bool = owner.query_one("select pg_promote()", &[]).await.unwrap().get(0);
        assert!(is_promoted, "the standby is promoted");
        self.link.set_server(self.address().to_owned());
    }
}

async fn count(sql: &Client, query: &str) -> i64 {
    sql.query_one(query, &[]).await.unwrap().get(0)
}
