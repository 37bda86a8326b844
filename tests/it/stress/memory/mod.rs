//! The memory promise: at all its limits, the server stays below the memory limit of the shipped containers.

mod attacks;

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use self::attacks::{
    Attack, Attackers, SPARE_CONNECTIONS, attack_with_everything, attacks, fill_cache, open_connections,
    wait_until_released,
};
use super::{
    hostile::{
        attacks::{PARTIAL_HEAD, get_request, raise_nofile_limit},
        fixture::AttackFixture,
    },
    record_result,
};
use crate::harness::{
    memory_group::{GroupMemory, MemoryGroup},
    wait_until,
};

/// The limit of the containers that the project ships.
const SHIPPED_LIMIT: u64 = 768 << 20;
/// The measured memory of one connection in the process (`src/config/memory.rs`).
const PLANNED_CONNECTION_KIB: i64 = 28;

#[tokio::test(flavor = "multi_thread")]
async fn connections_take_no_more_memory_than_planned() {
    const COUNT: usize = 400;
    let limit = SHIPPED_LIMIT.to_string();
    let fixture = AttackFixture::start(100, &[("MEMORY_LIMIT", &limit), ("IDLE_TIMEOUT", "5s")]).await;
    let idle = fixture.server.memory_kib("VmRSS");
    let before = fixture.resource_usage().await;
    let head = format!("{PARTIAL_HEAD}X-Padding: {}", "x".repeat(3800));
    let pages = get_request(&fixture.user, "/api/products/?page_size=100").repeat(40);
    for bytes in [Vec::new(), head.into_bytes(), pages] {
        let connections = open_connections(&fixture.user, COUNT, |_| bytes.clone()).await;
        assert_eq!(connections.len(), COUNT);
        wait_until("the server has accepted all connections", async || {
            fixture.server.descriptors() >= before.descriptors + COUNT - 20
        })
        .await;
        assert_eq!(fixture.user.get("/api/products/").await.status, 200);
        drop(connections);
        fixture.wait_released(before).await;
    }
    let grown = fixture.server.memory_kib("VmHWM") - idle;
    let planned = i64::try_from(COUNT).unwrap() * PLANNED_CONNECTION_KIB;
    // the program's pages and the allocator's reserve also grow with the first requests
    assert!(grown < planned + 12 * 1024, "{grown} KiB for {COUNT} connections, {planned} KiB are planned");
}

/// Samples the memory of the group as long as it exists, and returns the peaks.
fn sample_memory(group: Weak<MemoryGroup>) -> Arc<Mutex<GroupMemory>> {
    let peak = Arc::new(Mutex::new(GroupMemory::default()));
    let result = Arc::clone(&peak);
    std::thread::spawn(move || {
        while let Some(now) = group.upgrade().map(|group| group.memory()) {
            let mut peak = peak.lock().unwrap();
            peak.sockets = peak.sockets.max(now.sockets);
            peak.unreclaimable = peak.unreclaimable.max(now.unreclaimable);
            drop(peak);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    result
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn shipped_memory_limit_holds_under_attack() {
    assert!(raise_nofile_limit() > 17_000, "17,000 descriptors are needed");
    let property = "the shipped memory limit holds under attack";
    let Some(group) = MemoryGroup::create(SHIPPED_LIMIT).map(Arc::new) else {
        record_result(property, "skipped: this machine does not allow to create a control group");
        return;
    };
    let settings = [("WRITE_TIMEOUT", "10s"), ("IDLE_TIMEOUT", "10s"), ("CACHE_ENTRY_BYTES", "33554432")];
    let fixture = AttackFixture::start_in(Some(&group), 20_000, &settings).await;
    let attackers = Attackers::create(&fixture).await;
    assert_eq!(attackers.connections, 8192 - SPARE_CONNECTIONS);
    fill_cache(&attackers).await;
    let before = fixture.resource_usage().await;
    let peak = sample_memory(Arc::downgrade(&group));
    let mut shares = Vec::new();
    let all = attacks(&fixture, &attackers, before).into_iter();
    let everything: Attack = Box::pin(attack_with_everything(&fixture, &attackers, before));
    for (name, attack) in all.chain([("all at once", everything)]) {
        let traffic = fixture.run_attack(attack).await;
        let memory = *peak.lock().unwrap();
        shares.push(format!("{name} {:.1} % of {}", traffic.percent_served(), traffic.sent));
        println!(
            "{} ({} MiB, {} MiB of sockets)",
            shares[shares.len() - 1],
            memory.unreclaimable >> 20,
            memory.sockets >> 20
        );
        // version 1 counts sockets apart
        assert!(memory.unreclaimable < SHIPPED_LIMIT, "{} MiB; {}", memory.unreclaimable >> 20, shares.join("; "));
        assert_eq!(group.kills(), 0, "{}", shares.join("; "));
        assert!(traffic.percent_served() >= 99.0, "{}", shares.join("; "));
        wait_until_released(&fixture, before, 8).await;
    }
    let (after, memory) = (fixture.resource_usage().await, *peak.lock().unwrap());
    let observed = format!(
        "in a control group of 768 MiB, {} connections, peak {} MiB without the page cache, sockets at most {} MiB, no \
         process killed; requests of well-behaved clients answered during: {}; before and after: {:.0} and \
         {:.0} MiB without the cache",
        attackers.connections,
        memory.unreclaimable >> 20,
        memory.sockets >> 20,
        shares.join("; "),
        before.memory,
        after.memory,
    );
    // the allocator does not return all memory to the system
    assert!(after.memory < before.memory + 64.0, "{observed}");
    record_result(property, &observed);
    drop(attackers);
    drop(fixture);
}
