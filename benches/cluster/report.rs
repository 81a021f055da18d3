//! One table for each size, and the bars.

use anyhow::Result;
use pmd_bench::options::RunOptions;
use pmd_bench::report::{Bar, Report, number, table};

use crate::figures::Figures;
use crate::options::{Part, Plan, Side};

/// Collects the figures of all sizes.
#[derive(Debug)]
pub(crate) struct ClusterReport<'a> {
    report: Report,
    plan: &'a Plan,
    /// pmd's figures by size.
    sizes: Vec<(usize, Figures)>,
}

impl<'a> ClusterReport<'a> {
    /// Prints the description of the run.
    pub(crate) fn begin(options: &RunOptions, plan: &'a Plan) -> Result<ClusterReport<'a>> {
        let report = Report::begin("pmd and serf as clusters", options, &plan.pmd, &plan.facts())?;
        Ok(ClusterReport { report, plan, sizes: Vec::new() })
    }

    /// Prints the figures of both sides at one size, and adds the bars.
    pub(crate) fn size(&mut self, size: usize, [pmd, serf]: &[Figures; 2]) -> Result<()> {
        let mut rows = Vec::new();
        let mut row = |part: Option<Part>, what: &str, figure: &dyn Fn(&Figures) -> f64| {
            if part.is_none_or(|part| self.plan.parts.contains(&part)) {
                let (of_pmd, of_serf) = (figure(pmd), figure(serf));
                rows.push(vec![what.to_owned(), number(of_pmd), number(of_serf), number(of_pmd / of_serf)]);
            }
        };
        row(None, "simultaneous join, until all see each other, median [ms]", &|f| f.join.millis(50.0));
        row(None, "simultaneous join, until all see each other, worst [ms]", &|f| f.join.millis(100.0));
        let part = Some(Part::Changes);
        row(part, "change, on one member, p50 [ms]", &|f| f.change_one.millis(50.0));
        row(part, "change, on one member, p99 [ms]", &|f| f.change_one.millis(99.0));
        row(part, "change, on all members, p50 [ms]", &|f| f.change_all.millis(50.0));
        row(part, "change, on all members, p99 [ms]", &|f| f.change_all.millis(99.0));
        row(part, "change, CPU of all processes together [ms]", &|f| f.change_cpu.millis(50.0));
        let part = Some(Part::Kills);
        row(part, "killed process, known to all, median [ms]", &|f| f.kill.millis(50.0));
        row(part, "killed process, known to all, worst [ms]", &|f| f.kill.millis(100.0));
        let part = Some(Part::Cables);
        row(part, "vanished host, known to all, median [ms]", &|f| f.cable.millis(50.0));
        row(part, "vanished host, known to all, worst [ms]", &|f| f.cable.millis(100.0));
        let part = Some(Part::Split);
        row(part, "third disconnected, from heal until all see each other [ms]", &|f| {
            f.heal_members.millis(100.0)
        });
        row(part, "third disconnected, from heal until equal fingerprints [ms]", &|f| {
            f.heal_prints.millis(100.0)
        });
        let part = Some(Part::Idle);
        row(part, "idle, CPU per process [% of a core]", &|f| f.idle.cpu);
        row(part, "idle, sent per process [B/s]", &|f| f.idle.sent[0]);
        row(part, "idle, sent by the busiest process [B/s]", &|f| f.idle.sent[1]);
        row(part, "idle, packets sent per process [1/s]", &|f| f.idle.packets);
        row(part, "resident memory per process [MB]", &|f| f.idle.resident[0]);
        row(part, "resident memory of the largest process [MB]", &|f| f.idle.resident[1]);
        row(part, "proportional memory per process [MB]", &|f| f.idle.proportional);
        table(&format!("{size} hosts"), " | pmd | serf | ratio", &rows, "")?;

        for failure in pmd.failures.iter().chain(&serf.failures) {
            self.report.failure(failure);
        }
        if self.plan.sides.contains(&Side::Pmd) {
            self.bars(size, pmd);
            self.sizes.push((size, pmd.clone()));
        }
        Ok(())
    }

    /// The bars that apply at every size.
    fn bars(&mut self, size: usize, pmd: &Figures) {
        let parts = &self.plan.parts;
        let mut bar = |part: Option<Part>, what: &str, measured: f64, limit: f64, unit: &'static str| {
            if part.is_none_or(|part| parts.contains(&part)) {
                self.report.bar(Bar::at_most(format!("{what}, {size} hosts"), measured, limit).unit(unit));
            }
        };
        let changes = Some(Part::Changes);
        let idle = Some(Part::Idle);
        let kills = Some(Part::Kills);
        bar(None, "simultaneous join of all", pmd.join.millis(50.0), 1e3, "ms");
        bar(changes, "change on all members, p50", pmd.change_all.millis(50.0), 50.0, "ms");
        bar(changes, "change on all members, p99", pmd.change_all.millis(99.0), 100.0, "ms");
        bar(idle, "idle, sent per process", pmd.idle.sent[0], 1024.0, "B/s");
        bar(idle, "idle, CPU per process", pmd.idle.cpu, 0.1, "%");
        bar(idle, "resident memory per process", pmd.idle.resident[0], 12.0, "MB");
        bar(kills, "killed process known, median", pmd.kill.millis(50.0), 1e3, "ms");
        bar(kills, "killed process known, worst", pmd.kill.millis(100.0), 3e3, "ms");
        bar(Some(Part::Cables), "vanished host known, median", pmd.cable.millis(50.0), 5e3, "ms");
        let heal = pmd.heal_prints.millis(100.0);
        bar(Some(Part::Split), "equal fingerprints after the heal", heal, 2e3, "ms");
    }

    /// Prints the bars, and returns whether the run has succeeded.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.flatness();
        self.report.finish()
    }

    /// Checks costs that must not grow with the cluster: at most by half from ten hosts, where every daemon has its
    /// full number of links, to the largest size.
    fn flatness(&mut self) {
        let of = |wanted: usize| self.sizes.iter().find(|(size, _)| *size == wanted);
        let Some(((_, base), (largest, at_most))) = of(10).zip(self.sizes.last()) else { return };
        if *largest <= 10 || !self.plan.parts.contains(&Part::Idle) {
            return;
        }
        let sent = at_most.idle.sent[0] / base.idle.sent[0];
        let cpu = at_most.idle.cpu / base.idle.cpu;
        for (what, growth) in [("bytes sent", sent), ("CPU", cpu)] {
            let what = format!("idle, {what}, {largest} hosts against 10");
            self.report.bar(Bar::at_most(what, growth, 1.5).unit("x"));
        }
    }
}
