//! The rules of choosing groups, and the one function that draws by any of them.

use super::draw::{Draw, Drawn};
use super::{nearest, overlap, oversample, pool, quadrant};
use crate::index::{Engine, Few, Index, Labelled, Listed, NeighborIndex};
use crate::{Result, check, memory, parallel};

/// How groups are chosen around their centres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// C of the K nearest neighbours of each centre.
    Nearest {
        /// Whether channel 0 is the centre.
        include_center: bool,
        /// Groups of each centre.
        rounds: usize,
    },
    /// C of the K nearest neighbours, round after round of all centres until there are
    /// `count` groups. A centre repeats a group only after it has had each of its
    /// possible groups once.
    Oversample {
        /// How many groups are drawn in all.
        count: usize,
    },
    /// One of the K nearest neighbours in each quadrant around the centre.
    Quadrant {
        /// Groups of each centre.
        rounds: usize,
    },
    /// Groups that grow from the centre: each position that joins overlaps all that
    /// joined before.
    Overlap {
        /// Pixels per side of a diffraction pattern (N).
        window: usize,
        /// The share of a window that two positions must have in common, 0..1.
        min_overlap: f64,
        /// Groups of each centre.
        rounds: usize,
    },
    /// A random sample of the pool of groups around all centres, which must be in
    /// rising order.
    Pool {
        /// How many groups are sampled. None: the whole pool, in lexicographic order.
        count: Option<usize>,
    },
}

/// What is known of the neighbours of a scan's positions before a draw.
#[derive(Clone, Copy)]
pub enum Known<'a> {
    /// Nothing. The draw builds what it needs.
    Nothing {
        /// Which index to build.
        engine: Engine,
        /// A label for each position; groups never mix labels.
        labels: Option<&'a [i32]>,
    },
    /// An index of the whole scan.
    Index(&'a Index),
    /// An index for each label; groups never mix labels.
    Labelled(&'a Labelled<Index>),
    /// Lists of the neighbours of every position.
    Lists(Listed<'a>),
}

impl Rule {
    /// Draws groups by this rule. Also returns which engine searched for neighbours, or
    /// None if none did.
    ///
    /// The groups do not depend on what was known of the neighbours (except for
    /// labels), nor on the engine: these only affect the speed.
    pub fn draw(self, draw: &Draw<'_, Known<'_>>) -> Result<(Drawn, Option<Engine>)> {
        if let Some(rounds) = self.rounds_of_centers(draw) {
            return Ok((centers_alone(draw, rounds)?, None));
        }
        // Only where nothing is known does the work grow with the scan.
        let rows = match draw.index {
            Known::Nothing { .. } => draw.positions.len() / 2,
            _ => draw.centers.len(),
        };
        parallel::together(rows, draw.threads, || self.draw_known(draw))
    }

    fn draw_known(self, draw: &Draw<'_, Known<'_>>) -> Result<(Drawn, Option<Engine>)> {
        match *draw.index {
            Known::Nothing { engine, labels } => self.draw_unindexed(draw, engine, labels),
            Known::Index(index) => Ok((self.draw_whole(&draw.on(index))?, Some(index.engine()))),
            Known::Labelled(index) => Ok((self.draw_on(&draw.on(index))?, Some(index.engine()))),
            Known::Lists(ref lists) => {
                lists.check_width(draw.k)?;
                Ok((self.draw_whole(&draw.on(lists))?, None))
            }
        }
    }

    /// If each group is its centre alone, so that nothing is searched: how many groups
    /// each centre has.
    fn rounds_of_centers<I>(self, draw: &Draw<'_, I>) -> Option<usize> {
        match self {
            Self::Nearest { rounds, .. } | Self::Overlap { rounds, .. } => {
                (draw.c == 1 && draw.limits.is_none()).then_some(rounds)
            }
            _ => None,
        }
    }

    /// Builds what the draw needs and draws from it: an index for each label, a grid of
    /// the positions around a few centres, or an index of the whole scan.
    fn draw_unindexed(
        self,
        draw: &Draw<'_, Known<'_>>,
        engine: Engine,
        labels: Option<&[i32]>,
    ) -> Result<(Drawn, Option<Engine>)> {
        let (positions, threads) = (draw.positions, draw.threads);
        if let Some(labels) = labels {
            let build = |own: &[f64]| Index::build(own, engine, threads);
            let index = Labelled::build(positions, labels, build)?;
            return self.draw(&draw.on(&Known::Labelled(&index)));
        }
        if let Some(include_center) = self.plain(draw)
            && engine != Engine::KdTree
            && let Some(few) = Few::new(positions, draw.centers.len(), threads)?
        {
            let drawn = nearest::draw(&draw.on(&few), include_center)?;
            return Ok((drawn, Some(Engine::Grid)));
        }
        let index = Index::build(positions, engine, threads)?;
        Ok((self.draw_whole(&draw.on(&index))?, Some(index.engine())))
    }

    /// Draws from an index that knows min(K, n - 1) neighbours of every position.
    fn draw_whole<I: NeighborIndex>(self, draw: &Draw<'_, I>) -> Result<Drawn> {
        match self.plain(draw) {
            Some(include_center) => nearest::draw(draw, include_center),
            None => self.draw_on(draw),
        }
    }

    /// If one group is drawn for each centre from its K nearest neighbours, without
    /// limits, which has a faster way: whether channel 0 is the centre.
    fn plain<I>(self, draw: &Draw<'_, I>) -> Option<bool> {
        match self {
            Self::Nearest {
                include_center,
                rounds: 1,
            } if draw.limits.is_none() => Some(include_center),
            _ => None,
        }
    }

    fn draw_on<I: NeighborIndex>(self, draw: &Draw<'_, I>) -> Result<Drawn> {
        match self {
            Self::Nearest {
                include_center,
                rounds,
            } => nearest::draw_rounds(draw, include_center, rounds),
            Self::Oversample { count } => oversample::draw(draw, count),
            Self::Quadrant { rounds } => quadrant::draw(draw, rounds),
            Self::Overlap {
                window,
                min_overlap,
                rounds,
            } => overlap::draw(draw, window, min_overlap, rounds),
            Self::Pool { count: Some(count) } => pool::draw(draw, count),
            Self::Pool { count: None } => pool::list(draw),
        }
    }
}

/// Groups of one position, the centre.
fn centers_alone<I>(draw: &Draw<'_, I>, rounds: usize) -> Result<Drawn> {
    const WHAT: &str = "the centers of groups";
    let n = draw.positions.len() / 2;
    check::group(n, draw.k, draw.c)?;
    check::indices("centers", draw.centers, n)?;
    let count = rounds.saturating_mul(draw.centers.len());
    let mut groups = memory::room(WHAT, count)?;
    while groups.len() < count {
        groups.extend(draw.centers);
    }
    Ok(Drawn {
        centers: (rounds > 1)
            .then(|| memory::copy(WHAT, &groups))
            .transpose()?,
        groups,
        ..Drawn::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::draw::Limits;
    use crate::index::neighbors;
    use crate::philox::Key;

    const NEAREST: Rule = Rule::Nearest {
        include_center: false,
        rounds: 1,
    };

    #[test]
    fn what_is_known_does_not_affect_groups() {
        let n = 600_usize;
        let positions: Vec<f64> = (0..2 * n).map(|i| ((i * i * 37) % 1009) as f64).collect();
        let all: Vec<i32> = (0..n as i32).collect();
        let index = Index::build(&positions, Engine::Grid, 1).unwrap();
        let (lists, width) = neighbors(&index, &all, 9, 1).unwrap();
        let known = [
            (Known::Index(&index), Some(Engine::Grid)),
            (Known::Lists(Listed::new(&lists, width, n).unwrap()), None),
        ];
        let rules = [
            NEAREST,
            Rule::Nearest {
                include_center: true,
                rounds: 3,
            },
            Rule::Oversample { count: 3 * n },
            Rule::Overlap {
                window: 200,
                min_overlap: 0.25,
                rounds: 1,
            },
            Rule::Pool { count: Some(50) },
            Rule::Pool { count: None },
        ];
        // Few centres are searched without an index of the scan.
        for centers in [&all[..], &all[..6]] {
            for rule in rules {
                let nothing = |engine| Known::Nothing {
                    engine,
                    labels: None,
                };
                let draw = |known: Known<'_>| {
                    let draw = Draw {
                        index: &known,
                        positions: &positions,
                        centers,
                        k: 9,
                        c: 4,
                        limits: None,
                        key: Key([5, 6]),
                        threads: 2,
                    };
                    rule.draw(&draw).unwrap()
                };
                let expected = draw(nothing(Engine::KdTree));
                assert_eq!(expected.1, Some(Engine::KdTree));
                for (known, engine) in known
                    .into_iter()
                    .chain([(nothing(Engine::Auto), Some(Engine::Grid))])
                {
                    assert_eq!(draw(known), (expected.0.clone(), engine), "{rule:?}");
                }
            }
        }
    }

    #[test]
    fn groups_of_one_position_are_the_centers() {
        let positions = [0.0, 0.0, 3.0, 0.0, 1.0, 0.0];
        let nothing = Known::Nothing {
            engine: Engine::Auto,
            labels: None,
        };
        let draw = Draw {
            index: &nothing,
            positions: &positions,
            centers: &[2, 0],
            k: 1,
            c: 1,
            limits: None,
            key: Key([5, 6]),
            threads: 1,
        };
        let twice = Rule::Nearest {
            include_center: false,
            rounds: 2,
        };
        let (drawn, engine) = twice.draw(&draw).unwrap();
        assert_eq!((drawn.groups, engine), (vec![2, 0, 2, 0], None));
        // Within limits a centre may have no neighbour, and so no group.
        let limited = Draw {
            limits: Some(Limits::new(0.0, 1.5)),
            centers: &[1, 0],
            ..draw
        };
        let (drawn, _) = NEAREST.draw(&limited).unwrap();
        assert_eq!((drawn.centers, drawn.too_few), (Some(vec![0]), vec![1]));
    }

    #[test]
    fn lists_that_are_too_short_are_refused() {
        let lists = [1, 0, 1];
        let known = Known::Lists(Listed::new(&lists, 1, 3).unwrap());
        let draw = Draw {
            index: &known,
            positions: &[0.0, 0.0, 1.0, 0.0, 2.0, 0.0],
            centers: &[0],
            k: 2,
            c: 2,
            limits: None,
            key: Key([5, 6]),
            threads: 1,
        };
        let error = NEAREST.draw(&draw).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The neighbor lists have length 1, but 2 neighbors of each position are needed. Pass longer lists, or \
             the index itself."
        );
    }
}
