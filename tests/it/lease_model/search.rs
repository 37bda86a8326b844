//! A breadth-first search through all states of the model.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt};

use super::{state::State, steps::Model};

/// The result of a search.
pub struct Search {
    /// The number of different states.
    pub states: usize,
    /// The shortest path to a state in which a hit would be stale: the steps, and the last state.
    pub stale: Option<String>,
}

/// Visits every state that can be reached, until one is stale.
pub fn search(model: &Model) -> Search {
    let start = State::default();
    // each state with the one that it was first reached from
    let mut reached = HashMap::new();
    reached.insert(start, start);
    let mut queue = VecDeque::from([start]);
    let mut next = Vec::new();
    while let Some(state) = queue.pop_front() {
        model.successors(&state, &mut next);
        for (_, successor) in next.drain(..) {
            if reached.contains_key(&successor) {
                continue;
            }
            reached.insert(successor, state);
            if successor.is_stale() {
                let path = path_to(model, &reached, successor);
                return Search { states: reached.len(), stale: Some(path) };
            }
            queue.push_back(successor);
        }
    }
    Search { states: reached.len(), stale: None }
}

fn path_to(model: &Model, reached: &HashMap<State, State>, last: State) -> String {
    let mut steps = Vec::new();
    let (mut state, mut successors) = (last, Vec::new());
    while reached[&state] != state {
        let before = reached[&state];
        successors.clear();
        model.successors(&before, &mut successors);
        steps.extend(successors.iter().find(|(_, successor)| *successor == state).map(|(step, _)| step.to_string()));
        state = before;
    }
    steps.reverse();
    format!("{}\n{last:#?}", steps.join("\n"))
}
